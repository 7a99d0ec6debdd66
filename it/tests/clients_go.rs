//! franz-go against the broker; the program is in `it/go`. `SCALE` sets the number of records per codec.

use std::process::Command;

use taccola_it::clients::{go, scale};
use taccola_it::{Broker, run};

#[test]
fn franz_go() {
    let Some(go) = go("franz_go") else { return };
    let folder = format!("{}/go", env!("CARGO_MANIFEST_DIR"));
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let program = temporary.path().join("franz");
    run(Command::new(go).args(["build", "-o"]).arg(&program).arg(".").current_dir(&folder));
    let broker = Broker::start(&["offsets.topic.num.partitions=5"]);
    let said = run(Command::new(&program).arg(broker.bootstrap()).arg(scale().to_string()));
    println!("franz-go: {}", said.replace('\n', "; "));
}
