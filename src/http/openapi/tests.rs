use super::*;

fn api() -> Value {
    let (json, _) = &*DOCUMENT;
    serde_json::from_slice(json).unwrap()
}

/// Paths without an operation of the API: those of Centrifugo's protocols, and the files of pages.
const OTHERS: [&str; 7] = [
    "/",
    "/page/{file}",
    "/docs/style.css",
    "/connection/http_stream",
    "/connection/sse",
    "/emulation",
    "/api/{method}",
];

#[test]
fn every_route_is_described() {
    let api = api();
    let routes = include_str!("../routes.rs");
    let resources: Vec<&str> = routes
        .split("web::resource(\"")
        .skip(1)
        .map(|behind| behind.split('"').next().unwrap())
        .filter(|path| !OTHERS.contains(path))
        .collect();
    assert!(resources.len() > 5);
    for path in &resources {
        assert!(api["paths"][path].is_object(), "{path} is not described");
        let (_, of_path) = routes
            .split_once(&format!("web::resource(\"{path}\")"))
            .unwrap();
        let of_path = of_path.split("web::resource(").next().unwrap();
        for method in ["get", "post", "delete", "head"] {
            let routed = of_path.contains(&format!("web::{method}()"));
            let described = api["paths"][path][method].is_object();
            assert_eq!(routed, described, "{method} {path}");
        }
    }
    let described = api["paths"].as_object().unwrap().keys();
    for path in described {
        assert!(resources.contains(&path.as_str()), "{path} is no route");
    }
}

#[test]
fn every_operation_says_what_it_is_for_and_how_it_fails() {
    let api = api();
    assert_eq!(api["openapi"], "3.1.0");
    assert_eq!(api["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{name}");
            assert!(operation["tags"].is_array(), "{name}");
            assert!(operation["x-problems"].is_null(), "{name}");
            let internal = &operation["responses"]["500"]["content"]["application/problem+json"];
            let example = &internal["examples"]["internal"]["value"];
            assert_eq!(example["type"], "urn:roomwire:problem:internal", "{name}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{name}: {parameter}");
                assert!(
                    parameter["schema"]["type"].is_string(),
                    "{name}: {parameter}"
                );
            }
        }
    }
}

#[test]
fn the_page_shows_every_operation_and_loads_nothing_from_elsewhere() {
    let (_, page) = &*DOCUMENT;
    let page = std::str::from_utf8(page).unwrap();
    for path in api()["paths"].as_object().unwrap().keys() {
        let heading = format!("</b> {path}</h3>");
        assert!(page.contains(&heading), "{path}");
    }
    assert!(!page.contains("<script") && !page.contains("://"), "{page}");
}
