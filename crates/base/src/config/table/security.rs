//! Authorisation, SASL, TLS, delegation tokens. Kafka: `BrokerSecurityConfigs`, `SslConfigs`, `SaslConfigs`.

use super::super::key::ConfigType::{Class, Int, Password, String};
use super::super::key::{ConfigKey, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("authorizer.class.name").string("").low()
        .refused_unless(&["org.apache.kafka.metadata.authorizer.StandardAuthorizer"], reasons::ACLS)
        .doc("The authorizer; only Kafka's StandardAuthorizer together with allow.everyone.if.no.acl.found=true is \
             taken, as no ACL can be created yet."),
    key("delegation.token.expiry.check.interval.ms").long(3_600_000).ms().min(1).low().accepted()
        .doc("How often expired delegation tokens are looked for."),
    key("delegation.token.expiry.time.ms").long(86_400_000).ms().min(1).medium().accepted()
        .doc("How long a delegation token is valid without renewal."),
    key("delegation.token.max.lifetime.ms").long(604_800_000).ms().min(1).medium().accepted()
        .doc("How long a delegation token can be renewed at most."),
    key("delegation.token.secret.key").of(Password).medium().refused(reasons::SASL)
        .doc("Secret from which delegation tokens are made."),
    key("principal.builder.class")
        .class("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder").medium().per_broker().refused(reasons::PLUGIN)
        .doc("The class that makes a principal out of a connection."),
    key("security.providers").of(String).low().refused(reasons::PLUGIN)
        .doc("Java classes that add security algorithms."),
    key("sasl.client.callback.handler.class").of(Class).medium().refused(reasons::PLUGIN)
        .doc("A Java class that supplies credentials for this broker's own SASL connections."),
    key("sasl.enabled.mechanisms").list("GSSAPI").medium().per_broker().refused(reasons::SASL)
        .doc("SASL mechanisms that clients may use."),
    key("sasl.jaas.config").of(Password).medium().per_broker().refused(reasons::SASL)
        .doc("Login module and credentials of a SASL listener."),
    key("sasl.kerberos.kinit.cmd").string("/usr/bin/kinit").medium().per_broker().accepted()
        .doc("Path of kinit."),
    key("sasl.kerberos.min.time.before.relogin").long(60_000).ms().medium().per_broker().accepted()
        .doc("Shortest time between two Kerberos logins."),
    key("sasl.kerberos.principal.to.local.rules").list("DEFAULT").medium().per_broker().accepted()
        .doc("Rules that shorten Kerberos principals to user names."),
    key("sasl.kerberos.service.name").of(String).medium().per_broker().accepted()
        .doc("Kerberos service name of the brokers."),
    key("sasl.kerberos.ticket.renew.jitter").double("0.05").medium().per_broker().accepted()
        .doc("Random share by which a ticket's renewal is moved."),
    key("sasl.kerberos.ticket.renew.window.factor").double("0.8").medium().per_broker().accepted()
        .doc("Share of a ticket's life after which it is renewed."),
    key("sasl.login.callback.handler.class").of(Class).medium().refused(reasons::PLUGIN)
        .doc("A Java class that supplies credentials for logins."),
    key("sasl.login.class").of(Class).medium().refused(reasons::PLUGIN)
        .doc("A Java class that performs logins."),
    key("sasl.login.connect.timeout.ms").of(Int).ms().low().accepted()
        .doc("How long connecting to a token endpoint may take."),
    key("sasl.login.read.timeout.ms").of(Int).ms().low().accepted()
        .doc("How long reading from a token endpoint may take."),
    key("sasl.login.refresh.buffer.seconds").short(300).seconds().medium().per_broker().accepted()
        .doc("Time before a token's end that its renewal must not cut into."),
    key("sasl.login.refresh.min.period.seconds").short(60).seconds().medium().per_broker().accepted()
        .doc("Shortest time between two renewals of a token."),
    key("sasl.login.refresh.window.factor").double("0.8").medium().per_broker().accepted()
        .doc("Share of a token's life after which it is renewed."),
    key("sasl.login.refresh.window.jitter").double("0.05").medium().per_broker().accepted()
        .doc("Random share by which a token's renewal is moved."),
    key("sasl.login.retry.backoff.max.ms").long(10_000).ms().low().accepted()
        .doc("Longest rest between attempts to reach a token endpoint."),
    key("sasl.login.retry.backoff.ms").long(100).ms().low().accepted()
        .doc("First rest between attempts to reach a token endpoint."),
    key("sasl.mechanism.controller.protocol").string("GSSAPI").high().refused(reasons::SASL)
        .doc("SASL mechanism of connections to the controller."),
    key("sasl.mechanism.inter.broker.protocol").string("GSSAPI").medium().per_broker().refused(reasons::SASL)
        .doc("SASL mechanism of connections between brokers."),
    key("sasl.oauthbearer.assertion.algorithm").string("RS256").one_of_any_case(&["ES256", "RS256"]).medium()
        .accepted()
        .doc("Signature algorithm of assertions that this broker makes."),
    key("sasl.oauthbearer.assertion.claim.aud").of(String).medium().accepted()
        .doc("Audience claim of assertions that this broker makes."),
    key("sasl.oauthbearer.assertion.claim.exp.seconds").int(300).seconds().range(0, 86_400).low().accepted()
        .doc("How long assertions that this broker makes are valid."),
    key("sasl.oauthbearer.assertion.claim.iss").of(String).medium().accepted()
        .doc("Issuer claim of assertions that this broker makes."),
    key("sasl.oauthbearer.assertion.claim.jti.include").boolean(false).medium().accepted()
        .doc("Whether assertions that this broker makes carry an id of their own."),
    key("sasl.oauthbearer.assertion.claim.nbf.seconds").int(60).seconds().range(0, 3600).low().accepted()
        .doc("How far before now assertions that this broker makes become valid."),
    key("sasl.oauthbearer.assertion.claim.sub").of(String).medium().accepted()
        .doc("Subject claim of assertions that this broker makes."),
    key("sasl.oauthbearer.assertion.file").of(String).medium().accepted()
        .doc("File that holds a ready-made assertion."),
    key("sasl.oauthbearer.assertion.private.key.file").of(String).medium().accepted()
        .doc("File of the private key that signs assertions."),
    key("sasl.oauthbearer.assertion.private.key.passphrase").of(Password).medium().accepted()
        .doc("Passphrase of that private key."),
    key("sasl.oauthbearer.assertion.template.file").of(String).medium().accepted()
        .doc("File with fixed header and claims of assertions."),
    key("sasl.oauthbearer.client.credentials.client.id").of(String).medium().accepted()
        .doc("Client id with which this broker gets its own tokens."),
    key("sasl.oauthbearer.client.credentials.client.secret").of(Password).medium().accepted()
        .doc("Client secret with which this broker gets its own tokens."),
    key("sasl.oauthbearer.clock.skew.seconds").int(30).seconds().low().refused(reasons::SASL)
        .doc("Difference of clocks that is tolerated when tokens are checked."),
    key("sasl.oauthbearer.expected.audience").list("").high().refused(reasons::SASL)
        .doc("Audiences of which a client's token must name one."),
    key("sasl.oauthbearer.expected.issuer").of(String).high().refused(reasons::SASL)
        .doc("Issuer that a client's token must name."),
    key("sasl.oauthbearer.jwks.endpoint.refresh.ms").long(3_600_000).ms().low().accepted()
        .doc("How often the issuer's keys are fetched anew."),
    key("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms").long(10_000).ms().low().accepted()
        .doc("Longest rest between attempts to fetch the issuer's keys."),
    key("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms").long(100).ms().low().accepted()
        .doc("First rest between attempts to fetch the issuer's keys."),
    key("sasl.oauthbearer.jwks.endpoint.url").of(String).medium().refused(reasons::SASL)
        .doc("Where the issuer's keys are found."),
    key("sasl.oauthbearer.jwt.retriever.class")
        .class("org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever").medium().refused(reasons::PLUGIN)
        .doc("The class that gets tokens for this broker's own connections."),
    key("sasl.oauthbearer.jwt.validator.class")
        .class("org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator").medium().refused(reasons::PLUGIN)
        .doc("The class that checks clients' tokens."),
    key("sasl.oauthbearer.scope").of(String).medium().accepted()
        .doc("Scope that this broker asks for in its own tokens."),
    key("sasl.oauthbearer.scope.claim.name").string("scope").low().accepted()
        .doc("Claim of a token that holds the scope."),
    key("sasl.oauthbearer.sub.claim.name").string("sub").low().accepted()
        .doc("Claim of a token that holds the subject."),
    key("sasl.oauthbearer.token.endpoint.url").of(String).medium().accepted()
        .doc("Where this broker gets its own tokens."),
    key("sasl.server.callback.handler.class").of(Class).medium().refused(reasons::PLUGIN)
        .doc("A Java class that checks clients' credentials."),
    key("sasl.server.max.receive.size").int(524_288).bytes().medium().accepted()
        .doc("Largest message during a SASL handshake."),
    key("ssl.allow.dn.changes").boolean(false).low().accepted()
        .doc("Let a new keystore have another distinguished name."),
    key("ssl.allow.san.changes").boolean(false).low().accepted()
        .doc("Let a new keystore have other alternative names."),
    key("ssl.cipher.suites").list("").medium().per_broker().refused(reasons::TLS)
        .doc("Cipher suites that TLS listeners offer."),
    key("ssl.client.auth").string("none").one_of(&["required", "requested", "none"]).medium().per_broker()
        .refused(reasons::TLS)
        .doc("Whether TLS clients must, may or need not show a certificate."),
    key("ssl.enabled.protocols").list("TLSv1.2,TLSv1.3").medium().per_broker().refused(reasons::TLS)
        .doc("TLS versions that listeners offer."),
    key("ssl.endpoint.identification.algorithm").string("https").low().per_broker().accepted()
        .doc("How this broker checks the host name of a TLS server it connects to."),
    key("ssl.engine.factory.class").of(Class).low().per_broker().refused(reasons::PLUGIN)
        .doc("A Java class that makes TLS engines."),
    key("ssl.key.password").of(Password).medium().per_broker().refused(reasons::TLS)
        .doc("Password of the private key."),
    key("ssl.keymanager.algorithm").string("SunX509").medium().per_broker().accepted()
        .doc("Java's name for the kind of key manager."),
    key("ssl.keystore.certificate.chain").of(Password).medium().per_broker().refused(reasons::TLS)
        .doc("Certificate chain of the listener, as PEM."),
    key("ssl.keystore.key").of(Password).medium().per_broker().refused(reasons::TLS)
        .doc("Private key of the listener, as PEM."),
    key("ssl.keystore.location").of(String).medium().per_broker().refused(reasons::TLS)
        .doc("File that holds the listener's key and certificates."),
    key("ssl.keystore.password").of(Password).medium().per_broker().refused(reasons::TLS)
        .doc("Password of that file."),
    key("ssl.keystore.type").string("JKS").medium().per_broker().accepted()
        .doc("Format of that file."),
    key("ssl.principal.mapping.rules").string("DEFAULT").low().refused(reasons::TLS)
        .doc("Rules that turn a certificate's name into a user name."),
    key("ssl.protocol").string("TLSv1.3").medium().per_broker().accepted()
        .doc("TLS version that Java's context is made for."),
    key("ssl.provider").of(String).medium().per_broker().refused(reasons::PLUGIN)
        .doc("Java's provider of TLS."),
    key("ssl.secure.random.implementation").of(String).low().per_broker().accepted()
        .doc("Java's source of randomness for TLS."),
    key("ssl.trustmanager.algorithm").string("PKIX").medium().per_broker().accepted()
        .doc("Java's name for the kind of trust manager."),
    key("ssl.truststore.certificates").of(Password).medium().per_broker().refused(reasons::TLS)
        .doc("Trusted certificates, as PEM."),
    key("ssl.truststore.location").of(String).medium().per_broker().refused(reasons::TLS)
        .doc("File that holds trusted certificates."),
    key("ssl.truststore.password").of(Password).medium().per_broker().refused(reasons::TLS)
        .doc("Password of that file."),
    key("ssl.truststore.type").string("JKS").medium().per_broker().accepted()
        .doc("Format of that file."),
];
