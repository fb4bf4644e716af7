//! The description as one page of HTML: no script, nothing from elsewhere.

use serde_json::Value;

/// Methods in the order of the page.
const METHODS: [&str; 4] = ["get", "head", "post", "delete"];

/// A page of a description, as JSON.
pub fn page(api: &Value) -> String {
    let info = &api["info"];
    let mut page = Page::default();
    page.raw("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width\">");
    page.raw("<title>Roomwire HTTP API</title><link rel=\"stylesheet\" href=\"docs/style.css\">");
    page.raw("<main><h1>").text(&info["title"]).raw(" <small>");
    page.text(&info["version"]).raw("</small></h1>");
    page.prose(&info["description"]);
    page.raw("<p>For tools: <a href=\"openapi.json\">openapi.json</a></p>");
    for tag in list(&api["tags"]) {
        page.raw("<h2>").text(&tag["name"]).raw("</h2>");
        page.prose(&tag["description"]);
        for (path, item) in map(&api["paths"]) {
            for method in METHODS {
                let operation = &item[method];
                if list(&operation["tags"]).contains(&tag["name"]) {
                    page.operation(method, path, operation);
                }
            }
        }
    }
    page.raw("<h2>Forms</h2>");
    for (name, schema) in map(&api["components"]["schemas"]) {
        page.raw("<section><h3 id=\"").escaped(name).raw("\">");
        page.escaped(name).raw("</h3>");
        page.prose(&schema["description"]);
        page.json("The schema", schema);
        page.raw("</section>");
    }
    page.raw("</main></html>");
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn operation(&mut self, method: &str, path: &str, operation: &Value) {
        self.raw("<section><h3><b>").escaped(&method.to_uppercase());
        self.raw("</b> ").escaped(path).raw("</h3>");
        self.prose(&operation["summary"])
            .prose(&operation["description"]);
        let parameters = list(&operation["parameters"]);
        if !parameters.is_empty() {
            self.raw("<table><tr><th>Parameter<th>In<th>Form<th>Meaning</tr>");
            for parameter in parameters {
                self.raw("<tr><td><code>")
                    .text(&parameter["name"])
                    .raw("</code>");
                if parameter["required"] == true {
                    self.raw(" *");
                }
                self.raw("<td>").text(&parameter["in"]);
                self.raw("<td>").escaped(&form(&parameter["schema"]));
                self.raw("<td>")
                    .prose(&parameter["description"])
                    .raw("</tr>");
            }
            self.raw("</table>");
        }
        for (kind, content) in map(&operation["requestBody"]["content"]) {
            self.raw("<h4>Body: ").escaped(kind).raw("</h4>");
            self.prose(&operation["requestBody"]["description"]);
            self.content(content);
        }
        self.raw("<h4>Answers</h4>");
        for (status, response) in map(&operation["responses"]) {
            self.raw("<details><summary><b>")
                .escaped(status)
                .raw("</b> ");
            let description = response["description"].as_str().unwrap_or_default();
            let mut lines = description.split("\n\n");
            self.inline(lines.next().unwrap_or_default())
                .raw("</summary>");
            lines.for_each(|line| {
                self.raw("<p>").inline(line).raw("</p>");
            });
            for (kind, content) in map(&response["content"]) {
                self.raw("<p><code>").escaped(kind).raw("</code></p>");
                self.content(content);
            }
            self.raw("</details>");
        }
        self.raw("</section>");
    }

    fn content(&mut self, content: &Value) {
        let name = content["schema"]["$ref"]
            .as_str()
            .and_then(|of| of.rsplit('/').next());
        if let Some(name) = name {
            self.raw("<p>Form: <a href=\"#").escaped(name).raw("\">");
            self.escaped(name).raw("</a></p>");
        }
        if !content["example"].is_null() {
            self.json("Example", &content["example"]);
        }
        for (name, example) in map(&content["examples"]) {
            self.json(name, &example["value"]);
        }
    }

    fn json(&mut self, title: &str, value: &Value) {
        self.raw("<figure><figcaption>")
            .escaped(title)
            .raw("</figcaption><pre>");
        self.escaped(&format!("{value:#}")).raw("</pre></figure>");
    }

    fn raw(&mut self, html: &str) -> &mut Self {
        self.0 += html;
        self
    }

    fn text(&mut self, text: &Value) -> &mut Self {
        self.escaped(text.as_str().unwrap_or_default())
    }

    fn escaped(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0 += "&amp;",
                '<' => self.0 += "&lt;",
                '>' => self.0 += "&gt;",
                '"' => self.0 += "&quot;",
                other => self.0.push(other),
            }
        }
        self
    }

    /// Paragraphs.
    fn prose(&mut self, text: &Value) -> &mut Self {
        for paragraph in text.as_str().unwrap_or_default().split("\n\n") {
            if !paragraph.is_empty() {
                self.raw("<p>").inline(paragraph).raw("</p>");
            }
        }
        self
    }

    /// What stands between backticks is code.
    fn inline(&mut self, text: &str) -> &mut Self {
        for (n, piece) in text.split('`').enumerate() {
            match n % 2 {
                0 => self.escaped(piece),
                _ => self.raw("<code>").escaped(piece).raw("</code>"),
            };
        }
        self
    }
}

/// What a parameter takes, in few words.
fn form(schema: &Value) -> String {
    let mut form = match &schema["type"] {
        Value::Array(types) => types
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null"),
        other => other.as_str(),
    }
    .unwrap_or_default()
    .to_owned();
    if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        form += &format!(", {least} to {most}");
    }
    let words: Vec<_> = list(&schema["enum"]).iter().map(Value::to_string).collect();
    if !words.is_empty() {
        form = words.join(" or ");
    }
    form
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn map(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.as_str(), value))
}
