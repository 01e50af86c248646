//! Renders the templates in `templates/` into the files that land on hosts or in the API.
