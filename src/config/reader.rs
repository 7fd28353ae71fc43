//! Parses the tables of one file in a single pass and collects all problems. An invalid value reads as absent, so parsing continues.
//!
//! [`tables!`] declares the keys of a table. It generates the table's struct, parser and JSON Schema, so that they have the same keys.
//! The calls are `read_table` → `Table::read_fields` → `read_field` → `KeyContent::read` → `read_value`, or again `read_table`.

use std::marker::PhantomData;
use std::ops::Range;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Location, Problem, SourceText};
use super::suggest::nearest;
use super::values::{Invalid, ValueType};

/// A table with a fixed set of keys.
pub(super) trait Table: Default {
    /// How messages name the table, such as `[poll]`.
    const NAME: &'static str;
    const KEYS: &'static [Key];
    /// Each group has alternative keys, of which a table must have at least one. `cross_check` and `resolve` report a table that has two.
    const REQUIRED: &'static [&'static [&'static str]];

    /// Reads the known keys. [`Reader::read_table`] also reports unknown and missing keys.
    fn read_fields(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Self;
}

pub(super) struct Key {
    pub name: &'static str,
    pub description: &'static str,
    pub schema: fn() -> Json,
}

/// Declares tables. `requires` lists groups of keys; a table must have one key of each group. The type of a key implements
/// [`KeyContent`]. Only keys can have doc comments.
macro_rules! tables {
    ($($name:ident, $table_name:literal requires $required:tt {
        $($(#[doc = $doc:literal])* $key:ident: $field:ty,)*
    })*) => {
        $(
            #[derive(Debug, Default)]
            #[allow(non_snake_case, reason = "some keys are operations of AWS, such as GetReadSetImportJob")]
            pub(super) struct $name {
                $($(#[doc = $doc])* pub $key: <$field as KeyContent>::Parsed,)*
            }

            impl Table for $name {
                const NAME: &'static str = $table_name;
                const KEYS: &'static [Key] = &[
                    $(Key { name: stringify!($key), description: concat!($($doc),*), schema: <$field as KeyContent>::schema },)*
                ];
                const REQUIRED: &'static [&'static [&'static str]] = &$required;

                fn read_fields(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Self {
                    Self { $($key: reader.read_field::<$field>(stringify!($key), table),)* }
                }
            }
        )*
    };
}
pub(super) use tables;

/// The content of a key: one value of a [`ValueType`], a [`List`], a [`Nested`] table, a [`Map`] or
/// the table of labels.
pub(super) trait KeyContent {
    /// An absent or invalid value reads as the default.
    type Parsed: Default;

    /// How messages name the value, if it is a table.
    const TABLE_NAME: Option<&'static str> = None;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Parsed;

    fn schema() -> Json;
}

impl<V: ValueType> KeyContent for V {
    type Parsed = Option<Spanned<V::Value>>;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Parsed {
        reader.read_value::<V>(&format!("`{key}`"), value.span(), value.get_ref())
    }

    fn schema() -> Json {
        V::schema()
    }
}

pub(super) struct List<C>(PhantomData<C>);

impl<C: KeyContent> KeyContent for List<C> {
    // `None`: the key is absent, or its value is not an array. An invalid element is `None`, or the default if it should be a table.
    type Parsed = Option<Vec<C::Parsed>>;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Parsed {
        let DeValue::Array(array) = value.get_ref() else {
            reader.wrong_type(key, "an array", value, C::TABLE_NAME);
            return None;
        };
        Some(array.iter().map(|value| C::read(reader, key, value)).collect())
    }

    fn schema() -> Json {
        json!({"type": "array", "items": C::schema()})
    }
}

pub(super) struct Nested<T>(PhantomData<T>);

impl<T: Table> KeyContent for Nested<T> {
    type Parsed = T;

    const TABLE_NAME: Option<&'static str> = Some(T::NAME);

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> T {
        if let DeValue::Table(table) = value.get_ref() {
            return reader.read_table(table, value.span());
        }
        reader.wrong_type(key, "a table", value, Self::TABLE_NAME);
        T::default()
    }

    fn schema() -> Json {
        table_schema::<T>()
    }
}

/// A table whose keys are names of type `N`.
pub(super) struct Map<N, C>(PhantomData<(N, C)>);

impl<N: ValueType, C: KeyContent> KeyContent for Map<N, C> {
    type Parsed = Vec<(Spanned<N::Value>, C::Parsed)>;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Parsed {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(key, "a table", value, None);
            return Vec::new();
        };
        let entries = table.iter().map(|(name, value)| {
            let text = DeValue::String(name.get_ref().clone());
            // The `?` skips the value of an invalid name, because messages about the value quote the name. In `users` it may be
            // "NAME:PASSWORD".
            let valid_name = reader.read_value::<N>(&format!("a name in `{key}`"), name.span(), &text)?;
            Some((valid_name, C::read(reader, name.get_ref(), value)))
        });
        entries.flatten().collect()
    }

    fn schema() -> Json {
        let pattern = N::schema()["pattern"].as_str().unwrap_or_default().to_owned();
        let mut entry = C::schema();
        if entry["description"].is_null() {
            entry["description"] = "One entry; its key is the name.".into();
        }
        json!({"type": "object", "patternProperties": {pattern: entry}, "additionalProperties": false})
    }
}

pub(super) fn table_schema<T: Table>() -> Json {
    let keys = T::KEYS.iter().map(|key| {
        let mut schema = (key.schema)();
        // Only durations have a description of their own: their limits.
        let limits = schema["description"].as_str().unwrap_or_default();
        schema["description"] = format!("{} {limits}", key.description.trim()).trim().into();
        (key.name.to_owned(), schema)
    });
    let properties: serde_json::Map<String, Json> = keys.collect();
    let mut schema = json!({"type": "object", "properties": properties});
    schema["additionalProperties"] = false.into();
    let (single, alternatives): (Vec<&[&str]>, Vec<&[&str]>) =
        T::REQUIRED.iter().copied().partition(|keys| keys.len() == 1);
    if !single.is_empty() {
        schema["required"] = json!(single.concat());
    }
    // A table has at most one group of alternatives.
    for keys in alternatives {
        schema["oneOf"] = keys.iter().map(|key| json!({"required": [key]})).collect();
    }
    schema
}

/// Keys of development versions and their present names, for users with an old file.
const RENAMED: [(&str, &str); 5] = [
    ("record", "database"),
    ("keep", "retention"),
    ("sweep", "use_list"),
    ("since", "created_within"),
    ("forget_after", "remove_after"),
];

/// Parses the tables of one file.
pub(super) struct Reader<'a> {
    source: &'a SourceText,
    pub problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a SourceText) -> Self {
        Self { source, problems: Vec::new() }
    }

    pub(super) fn report(&mut self, span: Range<usize>, message: &str, help: Option<String>) {
        self.problems.push(Problem::new(Location::new(self.source, span), message, help));
    }

    /// Reads a table, and reports unknown and missing keys. `span` is where missing keys are reported.
    pub(super) fn read_table<T: Table>(&mut self, table: &DeTable<'_>, span: Range<usize>) -> T {
        let known: Vec<&str> = T::KEYS.iter().map(|key| key.name).collect();
        let mut missing = T::REQUIRED.to_vec();
        missing.retain(|keys| !keys.iter().any(|key| table.contains_key(*key)));
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            let name = key.get_ref();
            // A key is not suggested if the table has it or an alternative to it.
            let is_settled = |key: &str| {
                let group = T::REQUIRED.iter().find(|group| group.contains(&key)).copied().unwrap_or_default();
                table.contains_key(key) || group.iter().any(|alternative| table.contains_key(*alternative))
            };
            let near = nearest(name, known.iter().copied().filter(|key| !is_settled(key)));
            // The misspelled key is not also reported as missing.
            missing.retain(|keys| !near.is_some_and(|near| keys.contains(&near)));
            let renamed = RENAMED.iter().find(|(old, new)| *old == &**name && known.contains(new));
            let help = renamed.map(|(_, new)| format!("renamed to `{new}`"));
            let help = help.or(near.map(|near| format!("did you mean `{near}`?")));
            let help = help.unwrap_or_else(|| format!("the valid keys are `{}`", known.join("`, `")));
            self.report(key.span(), &format!("unknown key `{name}`"), Some(help));
        }
        for keys in missing {
            let either = |keys: &&[&str]| format!("`{}`", keys.join("` or `"));
            let required: Vec<String> = T::REQUIRED.iter().map(either).collect();
            let help = format!("{} requires {}", T::NAME, required.join(" and "));
            self.report(span.clone(), &format!("the key {} is missing", either(&keys)), Some(help));
        }
        T::read_fields(self, table)
    }

    pub(super) fn read_field<C: KeyContent>(&mut self, key: &str, table: &DeTable<'_>) -> C::Parsed {
        table.get(key).map(|value| C::read(self, key, value)).unwrap_or_default()
    }

    fn read_value<V: ValueType>(
        &mut self,
        name: &str,
        span: Range<usize>,
        raw: &DeValue<'_>,
    ) -> Option<Spanned<V::Value>> {
        match V::convert(raw) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(Invalid { rule, help }) => {
                self.report(span, &format!("{name} {rule}"), help);
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>, table_name: Option<&str>) {
        let help = table_name.map(|name| format!("write {name}"));
        let Invalid { rule, help } = Invalid::wrong_type(expected, value.get_ref(), help);
        self.report(value.span(), &format!("`{key}` {rule}"), help);
    }
}
