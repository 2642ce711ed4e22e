//! The body with the parameters of its connection. Without parameters it is sent as the vault sent it, byte for byte. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// The top-level field that is added.
const FIELD: &str = "params";

/// The bytes before are left as they are: numbers that no program of ours could hold arrive as they were written.
pub fn with_params(body: &Bytes, params: &Map<String, Value>) -> Bytes {
    if params.is_empty() {
        return body.clone();
    }
    let params = Value::Object(params.clone());
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(body) else { return body.clone() };
    if fields.contains_key(FIELD) {
        return match serde_json::from_slice::<Map<String, Value>>(body) {
            Ok(mut whole) => {
                whole.insert(FIELD.to_owned(), params);
                Bytes::from(Value::Object(whole).to_string())
            }
            Err(_) => body.clone(),
        };
    }
    let Some(end) = body.iter().rposition(|byte| *byte == b'}') else { return body.clone() };
    let comma = if fields.is_empty() { "" } else { "," };
    let added = format!("{comma}\"{FIELD}\":{params}}}");
    let mut whole = Vec::with_capacity(end + added.len());
    whole.extend_from_slice(&body[..end]);
    whole.extend_from_slice(added.as_bytes());
    Bytes::from(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(body: &'static str, params: &Value) -> String {
        let params = params.as_object().expect("an object");
        String::from_utf8(with_params(&Bytes::from_static(body.as_bytes()), params).to_vec()).expect("text")
    }

    #[test]
    fn without_parameters_no_byte_changes() {
        assert_eq!(with("{ \"a\" : 1.0 }\n", &json!({})), "{ \"a\" : 1.0 }\n");
    }

    #[test]
    fn parameters_are_added_and_nothing_else_changes() {
        let params = json!({ "channel": "main" });
        assert_eq!(
            with("{\"a\":123456789012345678901234567890, \"b\":\"}\"}\n", &params),
            "{\"a\":123456789012345678901234567890, \"b\":\"}\",\"params\":{\"channel\":\"main\"}}"
        );
        assert_eq!(with(" { } ", &params), " { \"params\":{\"channel\":\"main\"}}");
        assert_eq!(with("{\"params\":1,\"a\":2}", &params), "{\"params\":{\"channel\":\"main\"},\"a\":2}");
    }
}
