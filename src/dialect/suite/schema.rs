//! As much of JSON Schema as the specs use.

use schemars::SchemaGenerator;
use serde_json::{Map, Value};

use crate::dialect::SchemaOf;

/// A type's schema and what it refers to.
pub(super) struct Described {
    schema: Value,
    definitions: Map<String, Value>,
}

impl Described {
    pub(super) fn by(of: SchemaOf) -> Self {
        let mut generator = SchemaGenerator::default();
        let schema = of(&mut generator).to_value();
        Self { schema, definitions: generator.take_definitions(true) }
    }

    /// Why a value is none of these; `None` where it is one. A field that the schema does not name
    /// is one too many, unless it says of what type others are.
    pub(super) fn fault(&self, value: &Value) -> Option<String> {
        self.fault_of(&self.schema, value)
    }

    /// The object's fields, each with whether it has to be there. None where it is not described.
    pub(super) fn fields(&self) -> Vec<(String, Vec<String>, bool)> {
        let object = self.object(&self.schema);
        let Some(Value::Object(properties)) = object.get("properties") else { return Vec::new() };
        let required = words(object.get("required"));
        let field = |(name, schema): (&String, &Value)| {
            (name.clone(), self.types(schema), required.contains(name))
        };
        properties.iter().map(field).collect()
    }

    /// What a schema refers to; of several, that which is an object.
    fn object<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let schema = self.resolved(schema);
        let any = any_of(schema).map(|one| self.resolved(one));
        any.into_iter().find(|one| one.get("properties").is_some()).unwrap_or(schema)
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return schema };
        let name = reference.rsplit('/').next().unwrap();
        self.definitions.get(name).unwrap_or_else(|| panic!("{reference} is not defined"))
    }

    fn types(&self, schema: &Value) -> Vec<String> {
        let schema = self.resolved(schema);
        let own = words(schema.get("type")).into_iter();
        own.chain(any_of(schema).flat_map(|one| self.types(one))).collect()
    }

    fn fault_of(&self, schema: &Value, value: &Value) -> Option<String> {
        let schema = self.resolved(schema);
        let types = words(schema.get("type"));
        if !types.is_empty() && !types.iter().any(|word| is_a(word, value)) {
            return Some(format!("{value} is no {}", types.join(" or ")));
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return Some(format!("{value} is not {}", schema["const"]));
        }
        if let Some(Value::Array(all)) = schema.get("enum")
            && !all.contains(value)
        {
            return Some(format!("{value} is none of {}", schema["enum"]));
        }
        let mut faults = any_of(schema).map(|one| self.fault_of(one, value)).peekable();
        if faults.peek().is_some() {
            let faults: Option<Vec<_>> = faults.collect();
            return faults.map(|all| all.join("; "));
        }
        match value {
            Value::Object(fields) if schema.is_object() => self.fault_of_fields(schema, fields),
            Value::Array(items) => {
                let schema = schema.get("items")?;
                items.iter().find_map(|item| self.fault_of(schema, item))
            }
            _ => None,
        }
    }

    fn fault_of_fields(&self, schema: &Value, fields: &Map<String, Value>) -> Option<String> {
        let missing = words(schema.get("required")).into_iter();
        if let Some(name) = missing.into_iter().find(|name| !fields.contains_key(name)) {
            return Some(format!("{name} is missing"));
        }
        fields.iter().find_map(|(name, value)| {
            let of = schema.get("properties").and_then(|all| all.get(name));
            match of.or(schema.get("additionalProperties")) {
                None | Some(Value::Bool(false)) => Some(format!("{name} is not described")),
                Some(of) => self.fault_of(of, value).map(|fault| format!("{name}: {fault}")),
            }
        })
    }
}

fn any_of(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array);
    all.into_iter().flatten()
}

/// One word, or several.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(word)) => vec![word.clone()],
        Some(Value::Array(all)) => {
            all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn is_a(word: &str, value: &Value) -> bool {
    match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

#[test]
fn a_wrong_value_is_found() {
    use schemars::JsonSchema;
    use serde_json::json;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "described, never made")]
    struct Outer {
        inner: Vec<Inner>,
        name: Option<String>,
    }
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "described, never made")]
    struct Inner {
        n: u64,
    }
    let described = Described::by(|generator| generator.subschema_for::<Outer>());
    for right in [json!({ "inner": [] }), json!({ "inner": [{ "n": 1 }], "name": null })] {
        assert_eq!(described.fault(&right), None, "{right}");
    }
    for (wrong, fault) in [
        (json!({}), "inner is missing"),
        (json!({ "inner": [{}] }), "inner: n is missing"),
        (json!({ "inner": [{ "n": "1" }] }), "inner: n: \"1\" is no integer"),
        (json!({ "inner": [], "other": 1 }), "other is not described"),
        (json!({ "inner": [], "name": 1 }), "name: 1 is no string or null"),
        (json!([]), "[] is no object"),
    ] {
        assert_eq!(described.fault(&wrong).as_deref(), Some(fault), "{wrong}");
    }
}
