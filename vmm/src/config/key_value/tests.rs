use serde::Deserialize;

use super::{Error, from_str};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Sample {
    path: String,
    #[serde(alias = "read-only")]
    ro: bool,
    queues: u8,
    block_size: Option<u16>,
    ports: Vec<u16>,
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Fast,
    Safe,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Required {
    path: String,
}

fn sample(edit: impl FnOnce(&mut Sample)) -> Sample {
    let mut sample = Sample::default();
    edit(&mut sample);
    sample
}

#[test]
fn well_formed_lists_fill_the_structure() {
    let table = [
        ("path=a.img", sample(|s| s.path = "a.img".into())),
        ("ro", sample(|s| s.ro = true)),
        ("read-only=off", Sample::default()),
        ("ro=true,path=x", sample(|s| (s.ro, s.path) = (true, "x".into()))),
        (r#"path="a,b.img",ro"#, sample(|s| (s.ro, s.path) = (true, "a,b.img".into()))),
        (r"path='a,\b'", sample(|s| s.path = r"a,\b".into())),
        (r#"path="a\"b\\c""#, sample(|s| s.path = r#"a"b\c"#.into())),
        ("path=a=b", sample(|s| s.path = "a=b".into())),
        ("path=C:\\x", sample(|s| s.path = "C:\\x".into())),
        ("path=", Sample::default()),
        ("path=größe", sample(|s| s.path = "größe".into())),
        ("queues=16,block-size=4096", sample(|s| (s.queues, s.block_size) = (16, Some(4096)))),
        ("ports=[1,2,3]", sample(|s| s.ports = vec![1, 2, 3])),
        ("ports=[]", Sample::default()),
        ("ports=7,ro", sample(|s| (s.ports, s.ro) = (vec![7], true))),
        ("mode=safe", sample(|s| s.mode = Mode::Safe)),
    ];
    for (input, expected) in table {
        assert_eq!(from_str::<Sample>(input), Ok(expected), "{input}");
    }
}

#[test]
fn broken_lists_say_where_and_why() {
    let table = [
        ("", "it is empty"),
        (",", "a key expected at character 1"),
        ("ro,", "a key expected at character 4"),
        ("ro,,path=x", "a key expected at character 4"),
        ("=x", "a key expected at character 1"),
        ("path=\"a", "the closing quote expected at character 8"),
        ("path='a", "the closing quote expected at character 8"),
        ("path=\"a\"b", "a comma expected at character 9"),
        (r#"path="\n""#, "`\"` or `\\` after a backslash expected at character 8"),
        ("ports=[1", "`]` expected at character 9"),
        ("ports=[1]x", "a comma expected at character 10"),
        ("ro,ro", "the key `ro` is repeated"),
        ("ro,read-only", "the key `ro` is repeated"),
        ("path", "the key `path` needs a value: `path=...`"),
        ("queues", "the key `queues` needs a value: `queues=...`"),
        ("queues=many", "`many` is no value for `queues`: a number in range is wanted"),
        ("queues=256", "`256` is no value for `queues`: a number in range is wanted"),
        ("queues=-1", "`-1` is no value for `queues`: a number in range is wanted"),
        ("queues=[1]", "`[1]` is no value for `queues`: one value, not a list, is wanted"),
        ("ro=maybe", "`maybe` is no value for `ro`: true or false is wanted"),
        ("mode=slow", "`slow` is no value for `mode`: one of fast, safe is wanted"),
        ("ports=[1,x]", "`x` is no value for `ports`: a number in range is wanted"),
    ];
    for (input, expected) in table {
        let error = from_str::<Sample>(input).expect_err(input);
        assert_eq!(error.to_string(), expected, "{input}");
    }
}

#[test]
fn unknown_keys_name_the_known_ones_and_the_nearest() {
    let error = from_str::<Sample>("pth=x").expect_err("unknown");
    let Error::UnknownKey { key, nearest, known } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((key.as_str(), *nearest), ("pth", Some("path")));
    assert!(known.contains(&"block-size"));
    assert!(error.to_string().contains("`pth` (did you mean `path`?); the keys are path, "));
}

#[test]
fn a_missing_key_is_named() {
    assert_eq!(
        from_str::<Option<Required>>("x").err(),
        Some(Error::Refused("invalid type: map, expected option".into()))
    );
    assert_eq!(from_str::<Required>("x=1").err(), Some(Error::MissingKey("path")));
}

/// Every string of up to five of the characters that mean something: each gives a value or an error.
#[test]
fn no_string_is_too_strange() {
    const LETTERS: [char; 8] = ['r', 'o', '=', ',', '"', '\'', '[', ']'];
    let mut strings = vec![String::new()];
    let mut accepted = 0;
    for _ in 0..5 {
        strings = strings
            .iter()
            .flat_map(|string| LETTERS.map(|letter| format!("{string}{letter}")))
            .collect();
        for string in &strings {
            match from_str::<Sample>(string) {
                Ok(_) => accepted += 1,
                Err(error) => assert!(!error.to_string().is_empty(), "{string}"),
            }
        }
    }
    assert_eq!(accepted, 1, "only `ro` means something");
}
