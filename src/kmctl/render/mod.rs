//! Renders the templates in `templates/` into the files that are installed on hosts or in the API.
//!
//! There is one template per file, compiled in and named by its target path. A name that a template uses and the
//! context does not have is an error, never an empty text.
mod context;
mod templates;

pub use context::{PKI, Settings, VOLUME_PLUGINS, settings};
pub(crate) use context::{in_url, parse as host_address};
pub use templates::{API, HOST, Template, render};

/// Why something could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template does not match its context.
    #[error("failed to render {template}")]
    Template {
        template: &'static str,
        #[source]
        source: Box<handlebars::RenderError>,
    },
    /// The rendered text holds no objects.
    #[error(transparent)]
    Objects(#[from] kmctl_core::k8s::ManifestsError),
    /// cluster.yaml requires something that cannot be rendered.
    #[error("{0}")]
    Cluster(String),
}
