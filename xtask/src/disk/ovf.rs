//! The OVF description of a virtual machine, from a template in which some values are missing.

/// What a template has to mention.
const FIELDS: [&str; 4] = ["name", "disk_file", "disk_file_size", "capacity"];

/// A template that mentions all that there is to say, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("it does not mention {{{{{0}}}}}")]
    Missing(&'static str),
    #[error(
        "it mentions {{{{{0}}}}}, which is nothing; there are {{{{name}}}}, {{{{disk_file}}}}, {{{{disk_file_size}}}} and {{{{capacity}}}}"
    )]
    Unknown(String),
    #[error("it is cut off: it does not end with </{0}>")]
    Cut(String),
}

/// What a virtual machine is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine<'a> {
    pub(super) name: &'a str,
    pub(super) disk_file: &'a str,
    /// In bytes.
    pub(super) disk_file_size: u64,
    /// In bytes.
    pub(super) capacity: u64,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template, TemplateError> {
        for rest in text.split("{{").skip(1) {
            let field = rest.split_once("}}").map_or(rest, |(field, _)| field);
            if !FIELDS.contains(&field) {
                return Err(TemplateError::Unknown(field.chars().take(40).collect()));
            }
        }
        match FIELDS.into_iter().find(|field| !text.contains(&format!("{{{{{field}}}}}"))) {
            Some(field) => Err(TemplateError::Missing(field)),
            None => check_end(text).map(|()| Template(text.to_owned())),
        }
    }

    /// As it is written.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The description, always as long as that of the longest file size: the rest is line feeds,
    /// which mean nothing at the end of an XML document. So its length is known before that of the
    /// disk file is.
    pub(super) fn fill(&self, machine: Machine<'_>) -> String {
        let text = self.fill_exactly(machine);
        let longest = self.fill_exactly(Machine { disk_file_size: u64::MAX, ..machine }).len();
        let padding = "\n".repeat(longest - text.len());
        text + &padding
    }

    fn fill_exactly(&self, machine: Machine<'_>) -> String {
        let values = [
            escape(machine.name),
            escape(machine.disk_file),
            machine.disk_file_size.to_string(),
            machine.capacity.to_string(),
        ];
        let fields = FIELDS.into_iter().zip(values);
        fields.fold(self.0.clone(), |text, (field, value)| text.replace(&format!("{{{{{field}}}}}"), &value))
    }
}

/// A file that is cut off may have all fields. Source: XML 1.0, 2.1: a document is one element, here
/// with an end tag of its own unless it is the only tag.
fn check_end(text: &str) -> Result<(), TemplateError> {
    let is_name = |rest: &&str| rest.starts_with(|first: char| first.is_alphabetic());
    let root = text.split('<').skip(1).find(is_name).unwrap_or_default();
    let name: String = root.chars().take_while(|c| !c.is_whitespace() && !matches!(c, '>' | '/')).collect();
    let end = text.trim_end();
    let is_whole =
        end.ends_with(&format!("</{name}>")) || end.ends_with("/>") && end.ends_with(root.trim_end());
    if is_whole && !root.is_empty() {
        Ok(())
    } else {
        Err(TemplateError::Cut(name.chars().take(40).collect()))
    }
}

/// As text and attribute values have it. Source: XML 1.0, 2.4.
fn escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escaped.replace('"', "&quot;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_to_a_length_that_its_size_does_not_change() {
        let text =
            "<f name=\"{{name}}\" href='{{disk_file}}' size=\"{{disk_file_size}}\" c=\"{{capacity}}\"/>\n";
        let template = Template::parse(text).unwrap();
        let fill = |size| {
            template.fill(Machine {
                name: "R&D <\"x\">",
                disk_file: "it's",
                disk_file_size: size,
                capacity: 1 << 30,
            })
        };
        assert_eq!(
            fill(7).trim_end(),
            "<f name=\"R&amp;D &lt;&quot;x&quot;&gt;\" href='it&apos;s' size=\"7\" c=\"1073741824\"/>"
        );
        assert_eq!(fill(7).len(), fill(u64::MAX).len());
    }

    #[test]
    fn a_template_has_all_fields_and_no_other() {
        let error = |text| Template::parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(error("{{name}} {{disk_file}} {{capacity}}"), @"it does not mention {{disk_file_size}}");
        let all = "{{name}} {{disk_file}} {{disk_file_size}} {{capacity}}";
        for text in [
            all.to_owned(),
            format!("<?xml?>\n<E a='1'><F>{all}</F>"),
            format!("<E>{all}<F/>"),
            format!("<E>{all}</E"),
        ] {
            assert!(Template::parse(&text).is_err(), "{text}");
        }
        Template::parse(&format!("<?xml?>\n<!-- x -->\n<E a='1'>{all}</E>\n\n")).unwrap();
        let cut = format!("<E>{all}");
        insta::assert_snapshot!(error(&cut), @"it is cut off: it does not end with </E>");
        insta::assert_snapshot!(error("{{nmae}}"), @"it mentions {{nmae}}, which is nothing; there are {{name}}, {{disk_file}}, {{disk_file_size}} and {{capacity}}");
    }
}
