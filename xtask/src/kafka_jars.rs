//! Apache Kafka's own jars, brought by Maven where Java and Maven are there: the source of the message specs, the oracle
//! of the tests and the other side of the benchmark. Nothing of them is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The level that this project answers to.
pub(crate) const KAFKA_VERSION: &str = "4.3.1";

/// A registry that has not brought everything by then does not answer.
const BROUGHT_WITHIN: Duration = Duration::from_secs(600);

/// One artifact of Maven's registry; what it depends on comes with it.
pub(crate) struct Artifact {
    pub(crate) group: &'static str,
    pub(crate) artifact: &'static str,
    pub(crate) version: &'static str,
    /// Empty for the main one.
    pub(crate) classifier: &'static str,
}

/// The logging that Kafka's own distribution has, at a level that its jars work with.
pub(crate) const LOGGING: Artifact =
    Artifact { group: "org.apache.logging.log4j", artifact: "log4j-slf4j-impl", version: "2.25.4", classifier: "" };

/// An artifact of Kafka.
pub(crate) const fn kafka(artifact: &'static str, version: &'static str, classifier: &'static str) -> Artifact {
    Artifact { group: "org.apache.kafka", artifact, version, classifier }
}

/// The folder with the jars: `KAFKA_JARS`, else `target/kafka-jars/<version>`, filled at first use.
pub(crate) fn dir(root: &Path) -> Result<PathBuf, String> {
    if let Some(dir) = std::env::var_os("KAFKA_JARS") {
        return Ok(PathBuf::from(dir));
    }
    let dir = crate::shell::target_dir(root).join("kafka-jars").join(KAFKA_VERSION);
    let [broker, tools, streams] =
        ["kafka_2.13", "kafka-tools", "kafka-streams"].map(|name| kafka(name, KAFKA_VERSION, ""));
    bring(&dir, &[broker, tools, streams, LOGGING])?;
    Ok(dir)
}

/// Fills a folder with artifacts and what they depend on, once.
pub(crate) fn bring(dir: &Path, artifacts: &[Artifact]) -> Result<(), String> {
    let complete = dir.join(".complete");
    if complete.exists() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let pom = dir.join("pom.xml");
    fs::write(&pom, pom_text(artifacts)).map_err(|error| format!("{}: {error}", pom.display()))?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
    maven.arg(format!("-DoutputDirectory={}", dir.display()));
    crate::shell::must_within(&mut maven, BROUGHT_WITHIN).map_err(|error| format!("Kafka's jars: {error}"))?;
    fs::write(&complete, "").map_err(|error| format!("{}: {error}", complete.display()))
}

fn pom_text(artifacts: &[Artifact]) -> String {
    let dependency = |Artifact { group, artifact, version, classifier }: &Artifact| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>\
             <classifier>{classifier}</classifier></dependency>"
        )
    };
    let dependencies: String = artifacts.iter().map(dependency).collect();
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>taccola</groupId><artifactId>kafka-jars</artifactId>\
         <version>1</version><dependencies>{}</dependencies></project>\n",
        dependencies.replace("<classifier></classifier>", "")
    )
}
