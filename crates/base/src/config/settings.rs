//! What the user set, from every place: a file of properties or TOML, the environment as the official image and
//! Bitnami's read it, and flags. Later places win; each value remembers where it came from.
//!
//! Order: defaults (the table's, not stored here), file, environment, flags.

use super::ConfigMap;
use super::key::Scope;
use super::properties::parse_properties;
use super::table;
use crate::limits::CONFIG_FILE_BYTES_MAX;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Line numbers begin at 1.
    File {
        path: PathBuf,
        line: usize,
    },
    /// The variable's name.
    Environment(String),
    Flag,
    /// By the program itself, on behalf of the user: what is derived from another setting, or fixed by a subcommand.
    Program,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("command line"),
            Self::Program => f.write_str("derived"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As it was written, untrimmed.
    pub value: String,
    pub place: Place,
}

/// Why a place could not be read at all; wrong values are found later, by `ServerConfig`.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: larger than {CONFIG_FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("{place}: {what}")]
    Syntax { place: Place, what: String },
    #[error("--override {text}: must be KEY=VALUE")]
    Override { text: String },
}

/// All settings of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    map: BTreeMap<String, Setting>,
    cluster_id: Option<String>,
}

impl Settings {
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything in order: file, environment, flags (`KEY=VALUE`), then what follows from them.
    pub fn load<E, K, V>(file: Option<&Path>, environment: E, overrides: &[String]) -> Result<Self, SettingsError>
    where
        E: IntoIterator<Item = (K, V)>,
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut settings = Self::new();
        if let Some(path) = file {
            settings.add_file(path)?;
        }
        settings.add_environment(environment);
        for text in overrides {
            settings.add_override(text)?;
        }
        Ok(settings)
    }

    /// Reads a file: TOML if its name ends in `.toml`, else Java properties.
    pub fn add_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let read = |source| SettingsError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(read)?;
        file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > CONFIG_FILE_BYTES_MAX {
            return Err(SettingsError::TooLarge { path: path.to_owned() });
        }
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml")) {
            self.add_toml(path, &bytes)
        } else {
            self.add_properties(path, &bytes)
        }
    }

    /// Java properties; `path` is only for messages.
    pub fn add_properties(&mut self, path: &Path, bytes: &[u8]) -> Result<(), SettingsError> {
        let place = |line| Place::File { path: path.to_owned(), line };
        let properties = parse_properties(bytes).map_err(|e| SettingsError::Syntax {
            place: place(e.line),
            what: "\\u must be followed by four hexadecimal digits".to_owned(),
        })?;
        for p in properties {
            self.set(p.key, p.value, place(p.line));
        }
        Ok(())
    }

    /// TOML with the same names, dotted or nested; arrays become lists. `path` is only for messages.
    pub fn add_toml(&mut self, path: &Path, bytes: &[u8]) -> Result<(), SettingsError> {
        let syntax = |line, what: &str| SettingsError::Syntax {
            place: Place::File { path: path.to_owned(), line },
            what: what.to_owned(),
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|e| syntax(line_of(bytes, e.valid_up_to()), "TOML must be valid UTF-8"))?;
        let table =
            DeTable::parse(text).map_err(|e| syntax(line_of(bytes, e.span().map_or(0, |s| s.start)), e.message()))?;
        let mut flat = BTreeMap::new();
        flatten(table.get_ref(), "", &mut flat).map_err(|(at, what)| syntax(line_of(bytes, at), &what))?;
        for (key, (value, at)) in flat {
            let line = line_of(bytes, at);
            self.set(key, value, Place::File { path: path.to_owned(), line });
        }
        Ok(())
    }

    /// `KAFKA_…`, `KAFKA_CFG_…`, `TACCOLA_…` and `CLUSTER_ID`; other variables are left alone.
    pub fn add_environment<E, K, V>(&mut self, environment: E)
    where
        E: IntoIterator<Item = (K, V)>,
        K: AsRef<str>,
        V: AsRef<str>,
    {
        // Sorted, so that the outcome does not depend on the order of the environment.
        let variables: BTreeMap<String, String> =
            environment.into_iter().map(|(k, v)| (k.as_ref().to_owned(), v.as_ref().to_owned())).collect();
        for (variable, value) in &variables {
            if variable == "CLUSTER_ID" || variable == "KAFKA_KRAFT_CLUSTER_ID" {
                self.cluster_id = Some(value.clone()).filter(|v| !v.is_empty());
            } else if let Some((key, value)) = environment_setting(variable, value) {
                self.set(key, value, Place::Environment(variable.clone()));
            }
        }
        self.derive_listeners();
    }

    /// As the image does: with advertised listeners alone, the same ports are listened on, on every interface.
    fn derive_listeners(&mut self) {
        if self.map.contains_key("listeners") {
            return;
        }
        let Some(Setting { value, place: Place::Environment(_) }) = self.map.get("advertised.listeners") else {
            return;
        };
        let listeners: Option<Vec<String>> = super::value::split_list(value)
            .iter()
            .map(|l| {
                let (name, address) = l.split_once("://")?;
                let (_, port) = address.rsplit_once(':')?;
                Some(format!("{name}://0.0.0.0:{port}"))
            })
            .collect();
        if let Some(listeners) = listeners {
            self.set("listeners", listeners.join(","), Place::Program);
        }
    }

    /// One flag: `KEY=VALUE`.
    pub fn add_override(&mut self, text: &str) -> Result<(), SettingsError> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                self.set(key.trim(), value, Place::Flag);
                Ok(())
            }
            _ => Err(SettingsError::Override { text: text.to_owned() }),
        }
    }

    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>, place: Place) {
        self.map.insert(key.into(), Setting { value: value.into(), place });
    }

    /// What was set, as it was written.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.map.get(key)
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.map.get(key).map(|s| s.value.as_str())
    }

    pub fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.map.iter().map(|(k, s)| (k.as_str(), s))
    }

    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    pub fn set_cluster_id(&mut self, id: impl Into<String>) {
        self.cluster_id = Some(id.into());
    }

    /// Names and values, without places, as the broker's static layer.
    pub fn to_map(&self) -> ConfigMap {
        let mut map: ConfigMap = self.map.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect();
        // Kafka shows each under both names, whichever was set.
        for (from, to) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
            if let Some(id) = map.get(from).filter(|id| id.trim() != "-1").cloned() {
                map.entry(to.to_owned()).or_insert(id);
            }
        }
        map
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Settings {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut settings = Self::new();
        for (key, value) in pairs {
            settings.set(key, value, Place::Program);
        }
        settings
    }
}

/// The environment of this process without what is not UTF-8 (`std::env::vars` panics on such).
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

/// Variables with our prefix that the official or Bitnami's image reads for itself, not for the broker.
static IMAGE_VARIABLES: &[&str] = &[
    "KAFKA_BASE_DIR",
    "KAFKA_CERTS_DIR",
    "KAFKA_CONF_DIR",
    "KAFKA_CONF_FILE",
    "KAFKA_DAEMON_GROUP",
    "KAFKA_DAEMON_USER",
    "KAFKA_DATA_DIR",
    "KAFKA_DEBUG",
    "KAFKA_ENABLE_KRAFT",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_INITSCRIPTS_DIR",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_KRAFT_CLUSTER_ID",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_MODE",
    "KAFKA_MOUNTED_CONF_DIR",
    "KAFKA_OPTS",
    "KAFKA_SSL_KEYSTORE_CREDENTIALS",
    "KAFKA_SSL_KEY_CREDENTIALS",
    "KAFKA_SSL_TRUSTSTORE_CREDENTIALS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_VERSION",
    "KAFKA_VOLUME_DIR",
];

/// Where the images mount key and trust stores that are named by file name alone.
const SECRETS_DIR: &str = "/etc/kafka/secrets";

/// The setting that a variable stands for, if any.
fn environment_setting(variable: &str, value: &str) -> Option<(String, String)> {
    if let Some(rest) = variable.strip_prefix("TACCOLA_") {
        let key = format!("taccola.{}", key_of_variable(rest));
        return table::find(Scope::Broker, &key).map(|_| (key, value.to_owned()));
    }
    let rest = variable.strip_prefix("KAFKA_")?;
    // What Kubernetes and Docker's links set for a service named kafka.
    let of_a_service = rest.starts_with("SERVICE_")
        || (rest.starts_with("PORT") && value.starts_with("tcp://"))
        || (rest.starts_with("PORT_") && rest.contains("_TCP"));
    if rest.is_empty() || of_a_service || IMAGE_VARIABLES.contains(&variable) {
        return None;
    }
    for store in ["KEYSTORE", "TRUSTSTORE"] {
        if rest.strip_prefix("SSL_").and_then(|r| r.strip_suffix("_FILENAME")) == Some(store) {
            return Some((format!("ssl.{}.location", store.to_lowercase()), format!("{SECRETS_DIR}/{value}")));
        }
    }
    Some((key_of_variable(rest.strip_prefix("CFG_").unwrap_or(rest)), value.to_owned()))
}

/// `___` is `-`, `__` is `_`, `_` is `.`; letters become small.
fn key_of_variable(rest: &str) -> String {
    rest.replace("___", "-").replace("__", "\u{0}").replace('_', ".").replace('\u{0}', "_").to_lowercase()
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes.iter().take(at).filter(|b| **b == b'\n').count()
}

type Flat = BTreeMap<String, (String, usize)>;

/// The parser bounds the depth of tables and arrays.
fn flatten(table: &DeTable<'_>, prefix: &str, flat: &mut Flat) -> Result<(), (usize, String)> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let at = key.span().start;
        if let DeValue::Table(inner) = value.get_ref() {
            flatten(inner, &name, flat)?;
        } else {
            let text = scalar(value.get_ref())
                .ok_or_else(|| (at, format!("{name} must be a text, a number, true, false, or an array of these")))?;
            if flat.insert(name.clone(), (text, at)).is_some() {
                return Err((at, format!("{name} is set twice")));
            }
        }
    }
    Ok(())
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(s) => Some(s.to_string()),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n.to_string()),
        DeValue::Float(d) => Some(d.as_str().to_owned()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|i| Some(i.get_ref()).filter(|v| !matches!(v, DeValue::Array(_))).and_then(scalar))
                .collect();
            texts.map(|t| t.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}
