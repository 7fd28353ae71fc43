//! Reads the tables of one file in a single pass and collects every problem on the way.
//!
//! A table declares its keys with [`tables!`]: from that one declaration come its struct, its reader and its JSON Schema.

use std::marker::PhantomData;
use std::ops::Range;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Location, Problem, Source};
use super::suggest::nearest;
use super::values::{Invalid, Kind};

/// A table with a fixed set of keys.
pub(super) trait Table: Default {
    /// How it is written: `[poll]`.
    const WRITTEN: &'static str;
    const KEYS: &'static [Key];
    const REQUIRED: &'static [&'static str];

    fn read(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Self;
}

/// A key of a table, as the schema describes it.
pub(super) struct Key {
    pub name: &'static str,
    pub about: &'static str,
    pub schema: fn() -> Json,
}

/// Declares tables. `K` in `key: K` is a kind of `values`, or one of the shapes below.
macro_rules! tables {
    ($($name:ident, $written:literal requires $required:tt {
        $($(#[doc = $doc:literal])* $key:ident: $field:ty,)*
    })*) => {
        $(
            #[derive(Debug, Default)]
            pub(super) struct $name {
                $($(#[doc = $doc])* pub $key: <$field as Field>::Read,)*
            }

            impl Table for $name {
                const WRITTEN: &'static str = $written;
                const KEYS: &'static [Key] = &[
                    $(Key { name: stringify!($key), about: concat!($($doc),*), schema: <$field as Field>::schema },)*
                ];
                const REQUIRED: &'static [&'static str] = &$required;

                fn read(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Self {
                    Self { $($key: reader.field::<$field>(stringify!($key), table),)* }
                }
            }
        )*
    };
}
pub(super) use tables;

/// The type of a key's value. An absent or wrong value reads as the default.
pub(super) trait Field {
    type Read: Default;

    /// How a table is written: `[poll]`.
    const WRITTEN: Option<&'static str> = None;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Read;

    fn schema() -> Json;
}

/// One value.
impl<K: Kind> Field for K {
    type Read = Option<Spanned<K::Value>>;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Read {
        reader.value::<K>(&format!("`{key}`"), value.span(), value.get_ref())
    }

    fn schema() -> Json {
        K::schema()
    }
}

/// An array.
pub(super) struct List<F>(PhantomData<F>);

impl<F: Field> Field for List<F> {
    type Read = Option<Vec<F::Read>>;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Read {
        let DeValue::Array(array) = value.get_ref() else {
            reader.wrong_type(key, "an array", value, F::WRITTEN);
            return None;
        };
        Some(array.iter().map(|value| F::read(reader, key, value)).collect())
    }

    fn schema() -> Json {
        json!({"type": "array", "items": F::schema()})
    }
}

/// A table.
pub(super) struct One<T>(PhantomData<T>);

impl<T: Table> Field for One<T> {
    type Read = T;

    const WRITTEN: Option<&'static str> = Some(T::WRITTEN);

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> T {
        if let DeValue::Table(table) = value.get_ref() {
            return reader.table(table, value.span());
        }
        reader.wrong_type(key, "a table", value, Self::WRITTEN);
        T::default()
    }

    fn schema() -> Json {
        table_schema::<T>()
    }
}

/// A table whose keys are names of kind `N`.
pub(super) struct Named<N, F>(PhantomData<(N, F)>);

impl<N: Kind, F: Field> Field for Named<N, F> {
    type Read = Vec<(Spanned<N::Value>, F::Read)>;

    fn read(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Self::Read {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(key, "a table", value, None);
            return Vec::new();
        };
        let named = table.iter().map(|(name, value)| {
            let text = DeValue::String(name.get_ref().clone());
            // The value of a wrong name is not read: the name may hold a password, as in "NAME:PASSWORD".
            let read_name = reader.value::<N>(&format!("a name in `{key}`"), name.span(), &text)?;
            Some((read_name, F::read(reader, name.get_ref(), value)))
        });
        named.flatten().collect()
    }

    fn schema() -> Json {
        let pattern = N::schema()["pattern"].as_str().unwrap_or_default().to_owned();
        let mut entry = F::schema();
        if entry["description"].is_null() {
            entry["description"] = "One entry; its key is the name.".into();
        }
        json!({"type": "object", "patternProperties": {pattern: entry}, "additionalProperties": false})
    }
}

pub(super) fn table_schema<T: Table>() -> Json {
    let keys = T::KEYS.iter().map(|key| {
        let mut schema = (key.schema)();
        let inner = schema["description"].as_str().unwrap_or_default();
        schema["description"] = format!("{} {inner}", key.about.trim()).trim().into();
        (key.name.to_owned(), schema)
    });
    let properties: serde_json::Map<String, Json> = keys.collect();
    let mut schema = json!({"type": "object", "properties": properties});
    schema["additionalProperties"] = false.into();
    if !T::REQUIRED.is_empty() {
        schema["required"] = json!(T::REQUIRED);
    }
    schema
}

/// The keys that had another name before the first release.
const RENAMED: [(&str, &str); 5] = [
    ("record", "database"),
    ("keep", "retention"),
    ("sweep", "use_list"),
    ("since", "created_within"),
    ("forget_after", "remove_after"),
];

/// Reads one file.
pub(super) struct Reader<'a> {
    source: &'a Source,
    pub problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, problems: Vec::new() }
    }

    pub(super) fn report(&mut self, span: Range<usize>, message: &str, help: Option<String>) {
        self.problems.push(Problem::new(Location::new(self.source, span), message, help));
    }

    /// Reads the keys of a table that starts at `span`.
    pub(super) fn table<T: Table>(&mut self, table: &DeTable<'_>, span: Range<usize>) -> T {
        let known: Vec<&str> = T::KEYS.iter().map(|key| key.name).collect();
        let mut missing: Vec<&str> = T::REQUIRED.to_vec();
        missing.retain(|key| !table.contains_key(*key));
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            let name = key.get_ref();
            let near = nearest(name, known.iter().copied().filter(|key| !table.contains_key(*key)));
            missing.retain(|key| Some(*key) != near);
            let renamed = RENAMED.iter().find(|(old, new)| *old == &**name && known.contains(new));
            let help = renamed.map(|(_, new)| format!("renamed to `{new}`"));
            let help = help.or(near.map(|near| format!("did you mean `{near}`?")));
            let help = help.unwrap_or_else(|| format!("the keys here are `{}`", known.join("`, `")));
            self.report(key.span(), &format!("unknown key `{name}`"), Some(help));
        }
        for key in missing {
            let help = format!("{} needs `{}`", T::WRITTEN, T::REQUIRED.join("` and `"));
            self.report(span.clone(), &format!("the key `{key}` is missing"), Some(help));
        }
        T::read(self, table)
    }

    pub(super) fn field<F: Field>(&mut self, key: &str, table: &DeTable<'_>) -> F::Read {
        table.get(key).map(|value| F::read(self, key, value)).unwrap_or_default()
    }

    fn value<K: Kind>(&mut self, subject: &str, span: Range<usize>, value: &DeValue<'_>) -> Option<Spanned<K::Value>> {
        match K::read(value) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(Invalid { rule, help }) => {
                self.report(span, &format!("{subject} {rule}"), help);
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>, written: Option<&str>) {
        let help = written.map(|written| format!("write {written}"));
        let Invalid { rule, help } = Invalid::wrong_type(expected, value.get_ref(), help);
        self.report(value.span(), &format!("`{key}` {rule}"), help);
    }
}
