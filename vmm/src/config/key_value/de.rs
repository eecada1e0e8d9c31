//! From items to any `Deserialize` type.

use std::str::FromStr;
use std::vec;

use serde::de::{
    DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor, value::StrDeserializer,
};
use serde::forward_to_deserialize_any;

use super::Error;
use super::parse::{Item, Value};

/// The whole list, as a map.
pub(super) struct ListDeserializer<'a> {
    items: &'a [Item],
}

impl<'a> ListDeserializer<'a> {
    pub(super) fn new(items: &'a [Item]) -> Self {
        Self { items }
    }
}

impl<'de> Deserializer<'de> for ListDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { rest: self.items.iter(), current: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, Item>,
    current: Option<&'a Item>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.current = self.rest.next();
        match self.current {
            Some(item) => seed.deserialize(StrDeserializer::new(&item.key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        // serde asks for a value only after its key.
        let Some(item) = self.current.take() else {
            return Err(Error::Refused("a value was asked for before its key".to_owned()));
        };
        seed.deserialize(ItemDeserializer { item }).map_err(|error| in_item(error, item))
    }
}

/// Says which key and value a refusal is about.
fn in_item(error: Error, item: &Item) -> Error {
    let Error::Refused(reason) = error else {
        return error;
    };
    let value = match &item.value {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::List(list)) => format!("[{}]", list.join(",")),
        None => return Error::MissingValue(item.key.clone()),
    };
    Error::InvalidValue { key: item.key.clone(), value, reason }
}

/// One item's value.
struct ItemDeserializer<'a> {
    item: &'a Item,
}

impl<'a> ItemDeserializer<'a> {
    fn text(&self) -> Result<&'a str, Error> {
        match &self.item.value {
            Some(Value::Text(text)) => Ok(text),
            Some(Value::List(_)) => {
                Err(Error::Refused("one value, not a list, is wanted".to_owned()))
            }
            None => Err(Error::MissingValue(self.item.key.clone())),
        }
    }

    fn number<T: FromStr>(&self) -> Result<T, Error> {
        let text = self.text()?;
        text.parse().map_err(|_| Error::Refused("a number in range is wanted".to_owned()))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for ItemDeserializer<'_> {
    type Error = Error;

    /// For types that take a number or text, such as a size.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.item.value {
            None => visitor.visit_bool(true),
            Some(Value::List(_)) => self.deserialize_seq(visitor),
            Some(Value::Text(text)) => match text.parse() {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_str(text),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.item.value.is_none() {
            return visitor.visit_bool(true);
        }
        match self.text()? {
            "true" | "on" | "yes" => visitor.visit_bool(true),
            "false" | "off" | "no" => visitor.visit_bool(false),
            _ => Err(Error::Refused("true or false is wanted".to_owned())),
        }
    }

    numbers! {
        deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32,
        deserialize_i64 visit_i64, deserialize_u8 visit_u8, deserialize_u16 visit_u16,
        deserialize_u32 visit_u32, deserialize_u64 visit_u64, deserialize_f32 visit_f32,
        deserialize_f64 visit_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let texts = match &self.item.value {
            Some(Value::List(list)) => list.clone(),
            _ => vec![self.text()?.to_owned()],
        };
        visitor.visit_seq(Elements { key: &self.item.key, rest: texts.into_iter() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text = self.text()?;
        if !variants.contains(&text) {
            let wanted = variants.join(", ");
            return Err(Error::Refused(format!("one of {wanted} is wanted")));
        }
        let access = StrDeserializer::<Error>::new(text);
        access.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// The elements of a list value; each is read like the value of an item of its own.
struct Elements<'a> {
    key: &'a str,
    rest: vec::IntoIter<String>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(text) = self.rest.next() else {
            return Ok(None);
        };
        let item = Item { key: self.key.to_owned(), value: Some(Value::Text(text)) };
        seed.deserialize(ItemDeserializer { item: &item })
            .map_err(|error| in_item(error, &item))
            .map(Some)
    }
}
