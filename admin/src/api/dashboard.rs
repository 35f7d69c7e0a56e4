//! The dashboard: its page and the files that the page is made of, all within the binary.
//!
//! It is written for browsers as they are, without a step that builds it: HTML, style sheets and ES modules, one
//! for each noun. The files are open to everybody and know nothing; what they show they ask the API for,
//! with the token that somebody gives them. Nothing comes from elsewhere, and the policy that is sent along
//! makes browsers see to that.

use axum::response::{Redirect, Response};

use super::asset;
use super::extract::Named;
use super::problem::Problem;

/// Where the page is.
const PLACE: &str = "/ui/";

/// Scripts, styles, images and requests from here only, no code or style within the page, no text that
/// becomes code, and no other page around this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const PAGE: &str = include_str!("dashboard/index.html");

/// A file with its type and contents.
macro_rules! files {
    ($($kind:ident $name:literal)*) => {
        [$(($name, $kind, include_str!(concat!("dashboard/", $name)))),*]
    };
}

/// What the page is made of.
const FILES: [(&str, &str, &str); 34] = files! {
    SVG "favicon.svg"
    CSS "charts.css"
    CSS "dialog.css"
    CSS "page.css"
    CSS "parts.css"
    CSS "tables.css"
    CSS "tokens.css"
    JS "actions.js"
    JS "api.js"
    JS "backends.js"
    JS "chart.js"
    JS "cluster.js"
    JS "concerns.js"
    JS "dialog.js"
    JS "dom.js"
    JS "format.js"
    JS "gauge.js"
    JS "icons.js"
    JS "incidents.js"
    JS "live.js"
    JS "login.js"
    JS "main.js"
    JS "page.js"
    JS "rollout.js"
    JS "runbook.js"
    JS "series.js"
    JS "service.js"
    JS "services.js"
    JS "split_bar.js"
    JS "stream.js"
    JS "theme.js"
    JS "timeline.js"
    JS "trends.js"
    JS "weights.js"
};

/// The dashboard, where people look for it.
#[utoipa::path(get, path = "/", operation_id = "home", tag = "process", security(()),
    responses((status = 308, description = "The dashboard is at /ui/", headers(("Location" = String, description = "/ui/")))))]
pub(super) async fn home() -> Redirect {
    Redirect::permanent(PLACE)
}

/// The dashboard, where people look for it.
#[utoipa::path(get, path = "/ui", operation_id = "dashboard_moved", tag = "process", security(()),
    responses((status = 308, description = "It is at /ui/", headers(("Location" = String, description = "/ui/")))))]
pub(super) async fn moved() -> Redirect {
    Redirect::permanent(PLACE)
}

/// The dashboard.
#[utoipa::path(get, path = "/ui/", operation_id = "dashboard", tag = "process", security(()),
    responses((status = 200, body = String, content_type = "text/html; charset=utf-8")))]
pub(super) async fn page() -> Response {
    asset::answer(HTML, PAGE, POLICY)
}

/// Files of the dashboard.
#[utoipa::path(get, path = "/ui/{file}", operation_id = "dashboard_file", tag = "process", security(()),
    params(("file" = String, Path, description = "Its name", pattern = "^[a-z_]+[.](js|css|svg)$", example = "main.js")),
    responses((status = 200, description = "Its contents", content(
        (String = "text/javascript; charset=utf-8"), (String = "text/css; charset=utf-8"), (String = "image/svg+xml")))))]
pub(super) async fn file(Named(name): Named<String>) -> Result<Response, Problem> {
    let file = FILES.iter().find(|(own, ..)| *own == name);
    let (_, kind, text) = file.ok_or_else(|| Problem::not_found("there is no such file"))?;
    Ok(asset::answer(kind, *text, POLICY))
}
