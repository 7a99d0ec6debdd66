//! DescribeConfigs, key 32, v1–v4. Answers to `ConfigHelper`; what the entries are is decided by
//! `taccola_base::config::describe_*`, from the one table of keys.
//!
//! Behaviour: all configs of a resource, or those that were asked for by name (null or an empty list: all). The broker
//! resource with an empty name has only what was set for all brokers. A group or client metrics subscription that has
//! nothing set is described by its defaults. Values of secrets are null. Only this broker's own id is answered. One type
//! of resource that nobody knows makes the whole request INVALID_REQUEST.
//! Version notes: v3 carries types and documentation.
//!
//! Loggers: the one logger is `root`, and its level is fixed at start.
//!
//! LIMIT: a response holds about `DESCRIBE_CONFIGS_BYTES_MAX`; resources that find no room are POLICY_VIOLATION.

use std::sync::Arc;

use taccola_base::config::{
    ConfigEntry, ConfigMap, Layers, describe_broker, describe_broker_defaults, describe_client_metrics, describe_group,
    describe_topic,
};
use taccola_base::limits;
use taccola_base::topic::validate_topic_name;
use taccola_meta::MetadataImage;
use taccola_meta::controller::ApiError;
use taccola_meta::image::config::{ConfigResource, ConfigResourceType};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use taccola_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

use crate::broker::Broker;
use crate::context::RequestContext;

/// The source of a logger's level (`DYNAMIC_BROKER_LOGGER_CONFIG`).
const LOGGER_SOURCE: i8 = 6;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = broker.image();
    let view = View {
        broker,
        image: &image,
        static_config: broker.settings.to_map(),
        with_synonyms: request.include_synonyms,
        with_documentation: request.include_documentation,
    };
    let unknown = request.resources.iter().find_map(|r| match ConfigResourceType::from_id(r.resource_type) {
        ConfigResourceType::Other(id) => Some(invalid(format!("{id} is no type of resource with configs"))),
        _ => None,
    });
    let mut room = limits::DESCRIBE_CONFIGS_BYTES_MAX;
    let results = request.resources.into_iter().map(|resource| {
        let described = match &unknown {
            Some(error) => Err(error.clone()),
            None => view.result(&resource, &mut room),
        };
        let (configs, error) = match described {
            Ok(configs) => (configs, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        DescribeConfigsResult {
            error_code: error.as_ref().map_or(0, |error| error.code.code()),
            error_message: Some(error.map(|error| error.message).unwrap_or_default()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs,
        }
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

struct View<'a> {
    broker: &'a Broker,
    image: &'a MetadataImage,
    static_config: ConfigMap,
    with_synonyms: bool,
    with_documentation: bool,
}

impl View<'_> {
    /// `room`: bytes that the response may still take.
    fn result(
        &self,
        resource: &DescribeConfigsResource,
        room: &mut usize,
    ) -> Result<Vec<DescribeConfigsResourceResult>, ApiError> {
        let full =
            || ApiError::new(ErrorCode::PolicyViolation, "the answer would be too large: ask for fewer resources");
        if *room == 0 {
            return Err(full());
        }
        let asked = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
        let mut configs =
            self.describe(ConfigResourceType::from_id(resource.resource_type), &resource.resource_name)?;
        configs.retain(|config| asked.is_none_or(|keys| keys.contains(&config.name)));
        *room = room.saturating_sub(configs.iter().map(size).sum());
        if *room == 0 { Err(full()) } else { Ok(configs) }
    }

    fn describe(
        &self,
        resource_type: ConfigResourceType,
        name: &str,
    ) -> Result<Vec<DescribeConfigsResourceResult>, ApiError> {
        let none = ConfigMap::new();
        let set = |resource: &ConfigResource| self.image.configs.of(resource).map_or(&none, |map| map);
        let (of_all, own) = (ConfigResource::default_broker(), ConfigResource::broker(self.broker.node_id));
        let layers =
            Layers { static_config: &self.static_config, dynamic_default: set(&of_all), dynamic_broker: set(&own) };
        let overrides = set(&ConfigResource::new(resource_type, name));
        let entries = match resource_type {
            ConfigResourceType::Topic => {
                self.check_topic(name)?;
                describe_topic(&layers, overrides)
            }
            ConfigResourceType::Broker if name.is_empty() => describe_broker_defaults(&layers),
            ConfigResourceType::Broker => {
                self.check_own_id(name)?;
                describe_broker(&layers)
            }
            ConfigResourceType::BrokerLogger => {
                self.check_own_id(name)?;
                return Ok(vec![root_logger(self.with_synonyms)]);
            }
            ConfigResourceType::Group => {
                check_named(name, "a group")?;
                describe_group(&layers, overrides)
            }
            ConfigResourceType::ClientMetrics => {
                check_named(name, "a client metrics subscription")?;
                describe_client_metrics(overrides)
            }
            ConfigResourceType::Other(id) => return Err(invalid(format!("{id} is no type of resource with configs"))),
        };
        Ok(entries.into_iter().map(|entry| self.shown(entry)).collect())
    }

    fn check_topic(&self, name: &str) -> Result<(), ApiError> {
        validate_topic_name(name).map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))?;
        match self.image.topics.by_name(name) {
            Some(_) => Ok(()),
            None => Err(ApiError::of(ErrorCode::UnknownTopicOrPartition)),
        }
    }

    fn check_own_id(&self, name: &str) -> Result<(), ApiError> {
        let own = self.broker.node_id;
        if name.parse() == Ok(own) {
            return Ok(());
        }
        Err(invalid(format!("this is broker {own}; {name:?} must be asked itself")))
    }

    fn shown(&self, entry: ConfigEntry) -> DescribeConfigsResourceResult {
        let synonyms = if self.with_synonyms { &*entry.synonyms } else { &[] };
        DescribeConfigsResourceResult {
            read_only: entry.is_read_only,
            config_source: entry.source.code(),
            is_sensitive: entry.is_sensitive,
            synonyms: synonyms
                .iter()
                .map(|synonym| DescribeConfigsSynonym {
                    name: synonym.name.clone(),
                    value: synonym.value.clone(),
                    source: synonym.source.code(),
                })
                .collect(),
            config_type: entry.type_code(),
            documentation: entry.doc.filter(|_| self.with_documentation).map(str::to_owned),
            name: entry.name,
            value: entry.value,
        }
    }
}

/// About the bytes that an entry takes in memory and, nearly, on the wire.
fn size(config: &DescribeConfigsResourceResult) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let own = config.name.len() + text(&config.value) + text(&config.documentation);
    let synonyms: usize = config.synonyms.iter().map(|synonym| 64 + synonym.name.len() + text(&synonym.value)).sum();
    128 + own + synonyms
}

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

fn check_named(name: &str, what: &str) -> Result<(), ApiError> {
    if name.is_empty() { Err(invalid(format!("{what} needs a name"))) } else { Ok(()) }
}

fn root_logger(with_synonyms: bool) -> DescribeConfigsResourceResult {
    let level = tracing::level_filters::LevelFilter::current().to_string().to_uppercase();
    let own = DescribeConfigsSynonym { name: "root".to_owned(), value: Some(level.clone()), source: LOGGER_SOURCE };
    DescribeConfigsResourceResult {
        name: "root".to_owned(),
        value: Some(level),
        read_only: true,
        config_source: LOGGER_SOURCE,
        synonyms: if with_synonyms { vec![own] } else { Vec::new() },
        ..Default::default()
    }
}
