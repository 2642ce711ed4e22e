//! Comparisons of a metadata value: the same for the filter of a trigger and for a query of notes. They order as SQLite does, numbers
//! before texts.

use std::cmp::Ordering;

use serde_json::{Map, Value};

pub(super) const SUPPORTED: [&str; 9] = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "exists"];

/// Whether a value (`None`: there is none) stands all these comparisons.
///
/// # Errors
/// When a comparison has no meaning.
pub(super) fn stands(value: Option<&Value>, operators: &Map<String, Value>) -> Result<bool, String> {
    let value = value.filter(|value| !value.is_null());
    let mut all = true;
    for (operator, wanted) in operators {
        all &= holds(value, operator, wanted)?;
    }
    Ok(all)
}

fn holds(value: Option<&Value>, operator: &str, wanted: &Value) -> Result<bool, String> {
    let same = |wanted: &Value| value.is_some_and(|value| order(value, wanted) == Some(Ordering::Equal));
    let ordered = |test: fn(Ordering) -> bool| -> Result<bool, String> {
        let wanted = plain(operator, wanted)?;
        Ok(value.is_some_and(|value| order(value, wanted).is_some_and(test)))
    };
    match operator {
        "exists" => match wanted {
            Value::Bool(wanted) => Ok(value.is_some() == *wanted),
            _ => Err("'exists' takes true or false".to_owned()),
        },
        "eq" if wanted.is_null() => Ok(value.is_none()),
        "ne" if wanted.is_null() => Ok(value.is_some()),
        "eq" => plain(operator, wanted).map(same),
        "ne" => plain(operator, wanted).map(|wanted| !same(wanted)),
        "gt" => ordered(Ordering::is_gt),
        "gte" => ordered(Ordering::is_ge),
        "lt" => ordered(Ordering::is_lt),
        "lte" => ordered(Ordering::is_le),
        "in" | "not_in" => {
            let list = wanted.as_array().ok_or_else(|| format!("'{operator}' takes a list"))?;
            let mut found = false;
            for one in list {
                found |= same(plain(operator, one)?);
            }
            Ok(found == (operator == "in"))
        }
        other => Err(format!("'{other}' is no operator; there are {}", SUPPORTED.join(", "))),
    }
}

fn plain<'a>(operator: &str, wanted: &'a Value) -> Result<&'a Value, String> {
    match wanted {
        Value::Array(_) | Value::Object(_) => Err(format!("'{operator}' takes a number, a text or a truth value")),
        _ => Ok(wanted),
    }
}

/// `None` when one of them is null.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    let number = |value: &Value| match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        value => value.as_f64(),
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (number(left), number(right)) {
        _ if left.is_null() || right.is_null() => None,
        (Some(left), Some(right)) => left.partial_cmp(&right),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => Some(text(left).cmp(&text(right))),
    }
}
