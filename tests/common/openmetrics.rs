//! A strict reader of the OpenMetrics 1.0 text format, for what `trawl` writes: counters, gauges and infos with whole
//! numbers. Whatever the format forbids is an error here. Owns no metric.

use std::collections::BTreeMap;

/// Labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// A metric family.
#[derive(Debug, Default, PartialEq)]
pub struct Family {
    pub kind: String,
    pub unit: String,
    pub help: String,
    pub samples: BTreeMap<Labels, u64>,
}

/// All families, by name without `_total` or `_info`.
#[derive(Debug, Default)]
pub struct Families(pub BTreeMap<String, Family>);

impl Families {
    /// The sum of the samples that have these labels among theirs.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let family = self.0.get(name).unwrap_or_else(|| panic!("no family {name}"));
        let has =
            |sample: &Labels| labels.iter().all(|(key, value)| sample.get(*key).is_some_and(|v| v == value));
        family.samples.iter().filter(|(sample, _)| has(sample)).map(|(_, value)| value).sum()
    }

    /// How many samples a family has.
    pub fn count(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, |family| family.samples.len())
    }
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(legal)
}

/// Reads a whole exposition.
pub fn parse(text: &str) -> Result<Families, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("does not end in # EOF")?;
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("# EOF is no line of its own".to_owned());
    }
    let (mut families, mut current) = (Families::default(), String::new());
    for line in body.lines() {
        let failed = |what: &str| format!("{what}: {line:?}");
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
                return Err(failed("no metadata"));
            };
            if !is_name(name) {
                return Err(failed("no name"));
            }
            if name != current {
                if families.0.insert(name.to_owned(), Family::default()).is_some() {
                    return Err(failed("a family in two places"));
                }
                name.clone_into(&mut current);
            }
            let family = families.0.get_mut(name).ok_or_else(|| failed("no family"))?;
            let place = match what {
                "TYPE" if ["counter", "gauge", "info"].contains(&rest) => &mut family.kind,
                "UNIT" if name.ends_with(&format!("_{rest}")) => &mut family.unit,
                "HELP" => &mut family.help,
                _ => return Err(failed("no metadata")),
            };
            if !place.is_empty() || !family.samples.is_empty() {
                return Err(failed("metadata twice or after samples"));
            }
            rest.clone_into(place);
        } else {
            let family = families.0.get_mut(&current).ok_or_else(|| failed("a sample before its family"))?;
            let suffix = match family.kind.as_str() {
                "counter" => "_total",
                "gauge" => "",
                "info" => "_info",
                _ => return Err(failed("a sample without a type")),
            };
            let rest = line.strip_prefix(&format!("{current}{suffix}"));
            let (labels, rest) = labels(rest.ok_or_else(|| failed("a sample of another family"))?)
                .ok_or_else(|| failed("no labels"))?;
            let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok());
            let value: u64 = value.ok_or_else(|| failed("no whole number"))?;
            if family.kind == "info" && value != 1 {
                return Err(failed("an info is 1"));
            }
            if family.samples.insert(labels, value).is_some() {
                return Err(failed("a series twice"));
            }
        }
    }
    match families.0.iter().find(|(_, family)| family.kind.is_empty() || family.help.is_empty()) {
        Some((name, _)) => Err(format!("{name} lacks type or help")),
        None => Ok(families),
    }
}

/// `{a="b",c="d"}`, or nothing, and what comes behind.
fn labels(text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((labels, text)) };
    loop {
        let (name, behind) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), behind.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    plain @ ('"' | '\\') => plain,
                    _ => return None,
                }),
                (_, plain) => value.push(plain),
            }
        };
        if !is_name(name) || labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = &behind[end + 1..];
        match rest.strip_prefix('}') {
            Some(rest) => return Some((labels, rest)),
            None => rest = rest.strip_prefix(',')?,
        }
    }
}
