//! The dashboard's keys, validated. Owns the rules about its names.
//!
//! Invariant: a name that comes out is one that a browser can send.

use super::file;
use super::plan::UiPlan;
use super::rules::Rules;

pub(super) fn resolve(rules: &mut Rules, ui: &file::Ui) -> UiPlan {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    for (at, name) in ui.hosts.iter().enumerate().filter(|(_, name)| !is_name(name)) {
        let advice = "write a name without scheme and port, such as \"trawl.example.net\"";
        rules.wrong(format!("ui.hosts[{at}]"), format!("{name:?}"), advice);
    }
    let origin = ui.origin.as_deref().filter(|origin| {
        let host = origin.strip_prefix("https://").map(|rest| rest.split_once(':').unwrap_or((rest, "443")));
        let is_origin = host.is_some_and(|(name, port)| is_name(name) && port.parse::<u16>().is_ok());
        if !is_origin {
            let advice = "write https://name or https://name:port, as browsers see the proxy";
            rules.wrong("ui.origin", format!("{origin:?}"), advice);
        }
        is_origin
    });
    let hosts = ui.hosts.iter().filter(|name| is_name(name)).map(|name| name.to_ascii_lowercase());
    let why = "slower, a browser gives up; faster than a disk is no bound";
    let key = "ui.view_bytes_per_second";
    let view_bytes_per_second = rules.size(key, ui.view_bytes_per_second, (64 << 10, 1 << 36), why);
    UiPlan { hosts: hosts.collect(), origin: origin.map(str::to_ascii_lowercase), view_bytes_per_second }
}
