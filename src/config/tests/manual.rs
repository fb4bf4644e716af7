use std::collections::BTreeMap;

use figment::providers::{Format, Toml};

use super::*;

const MANUAL: &str = include_str!("../../../docs/configuration.md");

#[test]
fn the_manual_lists_every_setting_with_its_default_range_and_forms() {
    // Keys have no defaults: one has to be there to be listed.
    let key = Toml::string(
        "[keys.NAME]\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"",
    );
    let (_, settings) = Config::read(Figment::from(key)).unwrap();
    let every_flag = ServeFlags {
        listen: Some(String::new()),
        data: Some(String::new()),
        config: None,
        workers: Some(String::new()),
        amqp_url: Some(String::new()),
        amqp_prefix: Some(String::new()),
        dev: true,
        log_format: Some(String::new()),
    };
    let flags: BTreeMap<_, _> = every_flag
        .given()
        .map(|(key, flag, _)| (key, flag))
        .collect();

    let expected: Vec<String> = settings
        .iter()
        .map(|setting| {
            let flag = flags
                .get(setting.key.as_str())
                .map_or(String::new(), |flag| format!("`{flag}`"));
            let key = setting.key.replace("namespaces.default", "namespaces.NAME");
            let variable = key.to_uppercase().replace('.', "__");
            let (default, accepted) = (&setting.default, &setting.accepted);
            format!("| `{key}` | `{default}` | {accepted} | `ROOMWIRE_{variable}` | {flag} |")
        })
        .collect();
    let told: Vec<String> = MANUAL
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split(" | ").take(5).collect::<Vec<_>>().join(" | ") + " |")
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn the_example_in_the_manual_is_a_valid_configuration() {
    let (_, behind) = MANUAL.split_once("```toml\n").unwrap();
    let (example, _) = behind.split_once("```").unwrap();
    let config = file(example).load().unwrap();
    let typing = config
        .namespaces
        .of(&RoomName::new("typing:1").unwrap())
        .unwrap();
    assert_eq!(typing.client_publish, ClientPublish::Ephemeral);
}
