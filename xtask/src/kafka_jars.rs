//! Apache Kafka's own jars, brought by Maven where Java and Maven are there: the source of the message specs, the oracle
//! of the tests and the other side of the benchmark. Nothing of them is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The level that this project answers to.
pub(crate) const KAFKA_VERSION: &str = "4.3.1";

/// The folder with the jars: `KAFKA_JARS`, else `target/kafka-jars/<version>`, filled at first use.
pub(crate) fn dir(root: &Path) -> Result<PathBuf, String> {
    if let Some(dir) = std::env::var_os("KAFKA_JARS") {
        return Ok(PathBuf::from(dir));
    }
    let target = crate::shell::target_dir(root);
    let dir = target.join("kafka-jars").join(KAFKA_VERSION);
    let complete = dir.join(".complete");
    if complete.exists() {
        return Ok(dir);
    }
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let pom = dir.join("pom.xml");
    fs::write(&pom, pom_text()).map_err(|error| format!("{}: {error}", pom.display()))?;
    let status = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", dir.display()))
        .status()
        .map_err(|error| format!("Maven is not there ({error})"))?;
    if !status.success() {
        return Err("Maven could not bring Kafka's jars".to_owned());
    }
    fs::write(&complete, "").map_err(|error| format!("{}: {error}", complete.display()))?;
    Ok(dir)
}

fn pom_text() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let kafka: String = ["kafka_2.13", "kafka-tools", "kafka-streams"]
        .iter()
        .map(|artifact| dependency("org.apache.kafka", artifact, KAFKA_VERSION))
        .collect();
    let logging = dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4");
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>taccola</groupId><artifactId>kafka-jars</artifactId>\
         <version>1</version><dependencies>{kafka}{logging}</dependencies></project>\n"
    )
}
