//! The alert rules of `monitoring/`, by Prometheus' own tool. What they name is held against the metrics by `observe`.

use crate::skip::skip;
use std::path::Path;
use std::process::Command;

#[test]
fn alerts_fire_where_they_should_and_nowhere_else() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts-test.yml"]] {
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(&folder).output() else {
            return skip("promtool", "scripts/install-deps.sh brings it");
        };
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (rules, tests) = (text("alerts.yml"), text("alerts-test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        // Once where it fires, once where it does not.
        assert!(tests.contains(&format!("        alertname: {alert}\n")), "{alert} is not seen to fire");
        let silent = format!("alertname: {alert}, exp_alerts: []}}");
        assert!(tests.contains(&silent), "{alert} is not seen to be silent");
    }
}
