//! The templates, compiled in.
use handlebars::Handlebars;

use super::{RenderError, Settings};

/// A template and the path of its result.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// Path below `templates/`, without `.hbs`. For a host's file this is its path on the host.
    pub path: &'static str,
    source: &'static str,
}

macro_rules! template {
    ($path:literal) => {
        Template { path: $path, source: include_str!(concat!("../../../templates/", $path, ".hbs")) }
    };
}

/// Files on control-plane hosts.
pub const HOST: [Template; 7] = [
    template!("etc/kubernetes/scheduler.yaml"),
    template!("etc/systemd/system/etcd.service"),
    template!("etc/systemd/system/kube-apiserver.service"),
    template!("etc/systemd/system/kube-controller-manager.service"),
    template!("etc/systemd/system/kube-scheduler.service"),
    template!("etc/systemd/system/km-scheduler.service"),
    template!("etc/systemd/system/km-endpoints.service"),
];

/// Objects in the API.
pub const API: [Template; 5] = [
    template!("api/nodes.yaml"),
    template!("api/km-scheduler.yaml"),
    template!("api/km-endpoints.yaml"),
    template!("api/policies.yaml"),
    template!("api/settings.yaml"),
];

/// Renders one template.
pub fn render(template: &Template, settings: &Settings) -> Result<String, RenderError> {
    let mut handlebars = Handlebars::new();
    // The results are not HTML, and a misspelt name must not become an empty text.
    handlebars.register_escape_fn(handlebars::no_escape);
    handlebars.set_strict_mode(true);
    handlebars
        .render_template(template.source, settings)
        .map_err(|source| RenderError::Template { template: template.path, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use kmctl_core::k8s::manifests;

    #[test]
    fn each_policy_is_in_force_says_why_and_names_its_documentation() {
        let objects = manifests("policies", include_str!("../../../templates/api/policies.yaml.hbs")).unwrap();
        let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
        let policies: Vec<_> = of("ValidatingAdmissionPolicy").collect();
        assert_eq!(policies.len(), 2);
        let documented = include_str!("../../../docs/scheduler.md");
        assert!(documented.contains("\n## What is refused\n"));
        for policy in policies {
            let name = policy["metadata"]["name"].as_str().unwrap();
            assert!(documented.contains(name), "{name}");
            let message = policy["spec"]["validations"][0]["message"].as_str().unwrap();
            assert!(message.contains("docs/scheduler.md of kmctl, \"What is refused\""), "{message}");
            let binding = of("ValidatingAdmissionPolicyBinding").find(|binding| binding["spec"]["policyName"] == name);
            assert_eq!(binding.unwrap()["spec"]["validationActions"], serde_json::json!(["Deny"]), "{name}");
        }
    }
}
