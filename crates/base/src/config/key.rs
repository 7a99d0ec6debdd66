//! One entry of the config table: name, type, default, bounds, scope, how it may change, what becomes of it here.
//! Answers to Kafka's `ConfigDef.ConfigKey`.
//!
//! Entries are constants, built by a chain: `key("num.partitions").int(1).min(1).medium().implemented().doc("…")`.

/// The largest `int`, Kafka's usual way to say "no bound".
pub const INT_MAX: i64 = i32::MAX as i64;

/// Kafka's `ConfigDef.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl ConfigType {
    /// The code of DescribeConfigs; 0 stands for a key that is not known.
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    /// In lower case, as documentation writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Int => "int",
            Self::Short => "short",
            Self::Long => "long",
            Self::Double => "double",
            Self::List => "list",
            Self::Class => "class",
            Self::Password => "password",
        }
    }
}

/// Whose config it is: the resource types of DescribeConfigs that have a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Broker,
    Topic,
    Group,
    ClientMetrics,
}

impl Scope {
    /// As in the names of the command line's entity types, in the singular.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Topic => "topic",
            Self::Group => "group",
            Self::ClientMetrics => "client-metrics",
        }
    }
}

/// The value when nothing is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DefaultValue {
    /// Nothing.
    Null,
    /// Kafka wants it set; see `ServerConfig` for what stands in here.
    Required,
    Boolean(bool),
    /// int, short or long.
    Number(i64),
    /// Every other type, as Kafka renders it.
    Text(&'static str),
}

impl DefaultValue {
    /// As Kafka renders it; `None` where there is none.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Null | Self::Required => None,
            Self::Boolean(b) => Some(b.to_string()),
            Self::Number(n) => Some(n.to_string()),
            Self::Text(s) => Some(s.to_owned()),
        }
    }
}

/// What a value must be, beyond its type. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Valid {
    Any,
    Range {
        min: Option<i64>,
        max: Option<i64>,
    },
    Between {
        min: f64,
        max: f64,
    },
    /// One of these, or for a list only these.
    OneOf(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    NonEmpty,
    /// 1 to 9, or -1.
    GzipLevel,
    /// `*`, or partition:broker pairs, or nothing.
    ThrottledReplicas,
    /// latest, earliest, or by_duration: and an ISO 8601 duration that is not negative.
    ShareOffsetReset,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    None,
    Millis,
    Seconds,
    Minutes,
    Hours,
    Bytes,
    BytesPerSecond,
}

impl Unit {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Millis => "ms",
            Self::Seconds => "s",
            Self::Minutes => "min",
            Self::Hours => "h",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes/s",
        }
    }
}

/// Kafka's `ConfigDef.Importance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// How a broker's key may change while the broker runs. Keys of other scopes always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    ReadOnly,
    /// For one broker only.
    PerBroker,
    /// For one broker, or as the default of all.
    ClusterWide,
}

impl UpdateMode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::PerBroker => "per-broker",
            Self::ClusterWide => "cluster-wide",
        }
    }
}

/// What becomes of a key here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does what it says.
    Implemented,
    /// Taken and shown, without effect; a value other than the default gets one warning.
    Accepted,
    /// A value other than the default, nothing, or one of `unless` is an error: it would promise what is not kept.
    Refused { reason: &'static str, unless: &'static [&'static str] },
}

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the table of Apache Kafka's broker.
    Kafka,
    /// Kafka's too, but not shown unless set: for tests, or not yet stable.
    KafkaInternal,
    /// Read by one of Kafka's plug-ins, so DescribeConfigs shows it without type or value, and only if set.
    KafkaPlugin,
    /// Kafka's, and set only by AlterConfigs, never by a file.
    KafkaDynamic,
    /// Ours.
    Taccola,
}

/// One entry of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfigKey {
    pub name: &'static str,
    pub scope: Scope,
    pub kind: ConfigType,
    pub default: DefaultValue,
    pub valid: Valid,
    pub unit: Unit,
    pub importance: Importance,
    pub update: UpdateMode,
    pub origin: Origin,
    /// The broker's keys that stand behind a topic's or a group's, first come first served; the last has the default.
    pub synonyms: &'static [&'static str],
    pub status: Status,
    pub doc: &'static str,
}

/// Starts an entry of the broker's scope, read-only, a string without default, accepted.
pub const fn key(name: &'static str) -> ConfigKey {
    ConfigKey {
        name,
        scope: Scope::Broker,
        kind: ConfigType::String,
        default: DefaultValue::Null,
        valid: Valid::Any,
        unit: Unit::None,
        importance: Importance::Medium,
        update: UpdateMode::ReadOnly,
        origin: Origin::Kafka,
        synonyms: &[],
        status: Status::Accepted,
        doc: "",
    }
}

/// Starts an entry of a topic.
pub const fn topic_key(name: &'static str) -> ConfigKey {
    let mut k = key(name);
    k.scope = Scope::Topic;
    k
}

/// Starts an entry of a group.
pub const fn group_key(name: &'static str) -> ConfigKey {
    let mut k = key(name);
    k.scope = Scope::Group;
    k
}

/// Starts an entry of a client metrics subscription.
pub const fn client_metrics_key(name: &'static str) -> ConfigKey {
    let mut k = key(name);
    k.scope = Scope::ClientMetrics;
    k
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $field:ident = $value:expr;)*) => {
        $($(#[$doc])* pub const fn $name(mut self) -> Self { self.$field = $value; self })*
    };
}

impl ConfigKey {
    setters! {
        high: importance = Importance::High;
        medium: importance = Importance::Medium;
        low: importance = Importance::Low;
        ms: unit = Unit::Millis;
        seconds: unit = Unit::Seconds;
        minutes: unit = Unit::Minutes;
        hours: unit = Unit::Hours;
        bytes: unit = Unit::Bytes;
        bytes_per_second: unit = Unit::BytesPerSecond;
        per_broker: update = UpdateMode::PerBroker;
        cluster_wide: update = UpdateMode::ClusterWide;
        required: default = DefaultValue::Required;
        internal: origin = Origin::KafkaInternal;
        plugin: origin = Origin::KafkaPlugin;
        dynamic_only: origin = Origin::KafkaDynamic;
        ours: origin = Origin::Taccola;
        implemented: status = Status::Implemented;
        accepted: status = Status::Accepted;
    }

    /// The type, without default.
    pub const fn of(mut self, kind: ConfigType) -> Self {
        self.kind = kind;
        self
    }

    const fn with(mut self, kind: ConfigType, default: DefaultValue) -> Self {
        self.kind = kind;
        self.default = default;
        self
    }

    pub const fn boolean(self, default: bool) -> Self {
        self.with(ConfigType::Boolean, DefaultValue::Boolean(default))
    }

    pub const fn int(self, default: i64) -> Self {
        self.with(ConfigType::Int, DefaultValue::Number(default))
    }

    pub const fn short(self, default: i64) -> Self {
        self.with(ConfigType::Short, DefaultValue::Number(default))
    }

    pub const fn long(self, default: i64) -> Self {
        self.with(ConfigType::Long, DefaultValue::Number(default))
    }

    pub const fn double(self, default: &'static str) -> Self {
        self.with(ConfigType::Double, DefaultValue::Text(default))
    }

    pub const fn string(self, default: &'static str) -> Self {
        self.with(ConfigType::String, DefaultValue::Text(default))
    }

    pub const fn list(self, default: &'static str) -> Self {
        self.with(ConfigType::List, DefaultValue::Text(default))
    }

    pub const fn class(self, default: &'static str) -> Self {
        self.with(ConfigType::Class, DefaultValue::Text(default))
    }

    pub const fn valid(mut self, valid: Valid) -> Self {
        self.valid = valid;
        self
    }

    pub const fn min(self, min: i64) -> Self {
        self.valid(Valid::Range { min: Some(min), max: None })
    }

    pub const fn range(self, min: i64, max: i64) -> Self {
        self.valid(Valid::Range { min: Some(min), max: Some(max) })
    }

    pub const fn between(self, min: f64, max: f64) -> Self {
        self.valid(Valid::Between { min, max })
    }

    pub const fn one_of(self, values: &'static [&'static str]) -> Self {
        self.valid(Valid::OneOf(values))
    }

    pub const fn one_of_any_case(self, values: &'static [&'static str]) -> Self {
        self.valid(Valid::OneOfAnyCase(values))
    }

    pub const fn synonyms(mut self, synonyms: &'static [&'static str]) -> Self {
        self.synonyms = synonyms;
        self
    }

    pub const fn refused(self, reason: &'static str) -> Self {
        self.refused_unless(&[], reason)
    }

    pub const fn refused_unless(mut self, unless: &'static [&'static str], reason: &'static str) -> Self {
        self.status = Status::Refused { reason, unless };
        self
    }

    pub const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Never shown in clear.
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.kind, ConfigType::Password) || matches!(self.origin, Origin::KafkaPlugin)
    }

    /// Cannot be changed while the broker runs.
    pub fn is_read_only(&self) -> bool {
        self.scope == Scope::Broker && self.update == UpdateMode::ReadOnly
    }

    /// Shown by DescribeConfigs even when not set.
    pub const fn is_listed(&self) -> bool {
        matches!(self.origin, Origin::Kafka | Origin::Taccola)
    }
}
