//! Renders the templates in `templates/` into the files that land on hosts or in the API.
//!
//! One template per file, compiled in and named by the path at which it lands; a name that a template uses and the
//! context does not have is an error, never an empty text.
mod context;
mod templates;

pub use context::{PKI, Settings, VOLUME_PLUGINS, settings};
pub(crate) use context::{in_url, parse as host_address};
pub use templates::{API, HOST, Template, render};

/// Why something could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template and its context do not fit.
    #[error("render {template}")]
    Template {
        /// The template.
        template: &'static str,
        /// The cause.
        #[source]
        source: Box<handlebars::RenderError>,
    },
    /// What was rendered holds no objects.
    #[error(transparent)]
    Objects(#[from] kmctl_core::k8s::ManifestsError),
    /// cluster.yaml asks for something that cannot be rendered.
    #[error("{0}")]
    Cluster(String),
}
