//! The part of JSON Schema that `config/notification.schema.json` uses. Other keywords fail a test.

use regex_lite::Regex;
use serde_json::Value;

/// Panics with the path of the first value that is not valid.
#[track_caller]
pub(super) fn assert_is_valid(event: &Value) {
    let text = include_str!("../../../config/notification.schema.json");
    let schema: Value = serde_json::from_str(text).expect("a schema");
    if let Err(error) = check(&schema, &schema, event, "event") {
        panic!("{error}: {event}");
    }
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().map(|name| name.as_str().expect("text").to_owned()).collect()
    };
    let properties = &schema["properties"];
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let is_valid = match keyword.as_str() {
            // Annotations, and rules that another keyword reads. `format` is an annotation by default.
            "$schema" | "$defs" | "title" | "description" | "format" | "else" => true,
            "type" => match rule {
                Value::String(name) => is_type(name, value),
                names => strings(names).iter().any(|name| is_type(name, value)),
            },
            "required" => strings(rule).iter().all(|name| value.get(name).is_some()),
            "properties" => {
                for (name, schema) in rule.as_object().expect("properties") {
                    value.get(name).map_or(Ok(()), |value| check(root, schema, value, &format!("{path}.{name}")))?;
                }
                true
            }
            "additionalProperties" => {
                let others =
                    value.as_object().expect("an object").iter().filter(|(name, _)| properties.get(name).is_none());
                for (name, value) in others {
                    check(root, rule, value, &format!("{path}.{name}"))?;
                }
                true
            }
            "items" => {
                for item in value.as_array().expect("an array") {
                    check(root, rule, item, &format!("{path}[]"))?;
                }
                true
            }
            "const" => value == rule,
            "enum" => rule.as_array().expect("values").contains(value),
            "pattern" => {
                let pattern = Regex::new(rule.as_str().expect("text")).expect("a pattern");
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "minimum" => value.as_f64() >= rule.as_f64(),
            "maxItems" => value.as_array().expect("an array").len() as u64 <= rule.as_u64().expect("a number"),
            "anyOf" => rule.as_array().expect("schemas").iter().any(|schema| check(root, schema, value, path).is_ok()),
            "$ref" => {
                let pointer = rule.as_str().expect("text").trim_start_matches('#');
                return check(root, root.pointer(pointer).expect("a definition"), value, path);
            }
            "if" => check(root, rule, value, path).is_ok() || check(root, &schema["else"], value, path).is_ok(),
            other => panic!("unknown keyword {other}"),
        };
        if !is_valid {
            return Err(format!("{path} is not valid by {keyword} {rule}"));
        }
    }
    Ok(())
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}
