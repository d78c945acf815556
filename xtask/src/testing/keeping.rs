//! A mock: registries with limits and habits that the specification allows, and that no registry
//! which can be installed here has: they keep whole parts alone, do not say how far an upload came,
//! take no parts or nothing large, or lose a session that they kept before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{Fault, FaultProxy, Seen, answer};

/// How a registry treats an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) keeps: Keeps,
    /// Whether it says how far an upload has come.
    pub(crate) tells: bool,
    /// The largest body that it takes in a PATCH.
    pub(crate) largest_part: usize,
    /// The largest body that it takes in a PUT.
    pub(crate) largest_whole: usize,
    /// The break, counted from 1, that takes the session with it.
    pub(crate) losing_break: usize,
}

/// What is kept of a body that broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// All that came.
    Bytes,
    /// Nothing of it; the parts before it stay.
    Parts,
}

/// Where a body breaks off: from how many bytes of the upload are there before it, and how many
/// it has, to how many of them pass.
pub(crate) type Cut = dyn FnMut(usize, usize) -> Option<usize> + Send;

/// The registry, which takes blobs and manifests, and has them no longer when it is dropped.
pub(crate) struct Keeping {
    pub(crate) proxy: FaultProxy,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By the number of their session, of which the first is 0.
    uploads: Vec<Option<Vec<u8>>>,
    breaks: usize,
    /// Bytes of the bodies that came.
    taken: usize,
    /// Finished uploads by digest, and manifests by path.
    stored: HashMap<String, Vec<u8>>,
}

impl Keeping {
    pub(crate) fn new(
        manner: Manner,
        cut: impl FnMut(usize, usize) -> Option<usize> + Send + 'static,
    ) -> Keeping {
        let state: Arc<Mutex<State>> = Arc::default();
        let cut: Arc<Mutex<Box<Cut>>> = Arc::new(Mutex::new(Box::new(cut)));
        let shared = state.clone();
        let proxy = FaultProxy::alone(move |seen| serve(seen, manner, &shared, &cut));
        Keeping { proxy, state }
    }

    /// A blob that was sent, or None.
    pub(crate) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().stored.get(digest).cloned()
    }

    /// How many bytes of bodies came here.
    pub(crate) fn taken(&self) -> usize {
        self.state.lock().unwrap().taken
    }

    /// How many sessions were opened.
    pub(crate) fn sessions(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }
}

fn serve(seen: &Seen, manner: Manner, state: &Arc<Mutex<State>>, cut: &Mutex<Box<Cut>>) -> Fault {
    let path = seen.path().to_owned();
    let length: usize = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let absent =
        || Fault::Answer(answer("404 Not Found", &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#));
    let Some((_, session)) = path.split_once("/blobs/uploads/") else {
        return match (seen.method.as_str(), path.contains("/manifests/")) {
            ("PUT", true) => take(state, length, move |state, body| {
                state.stored.insert(path, body);
                Some(answer("201 Created", &[], b""))
            }),
            ("GET", true) => match state.lock().unwrap().stored.get(&path) {
                Some(manifest) => {
                    let json: Value = serde_json::from_slice(manifest).unwrap();
                    let media_type = json["mediaType"].as_str().unwrap();
                    Fault::Answer(answer("200 OK", &[("Content-Type", media_type)], manifest))
                }
                None => absent(),
            },
            _ => absent(),
        };
    };
    let mut locked = state.lock().unwrap();
    if seen.method == "POST" {
        locked.uploads.push(Some(Vec::new()));
        let location = format!("{path}{}", locked.uploads.len() - 1);
        return Fault::Answer(answer("202 Accepted", &[("Location", &location)], b""));
    }
    let number: usize = session.parse().unwrap();
    let Some(have) = locked.uploads.get(number).and_then(Option::as_ref).map(Vec::len) else {
        let gone = br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#;
        return Fault::Answer(answer("404 Not Found", &[], gone));
    };
    drop(locked);
    let is_part = seen.method == "PATCH";
    let starts = seen.header("content-range").is_none_or(|range| range.starts_with(&format!("{have}-")));
    match seen.method.as_str() {
        "GET" if manner.tells => {
            let range = format!("0-{}", have.saturating_sub(1));
            let headers = [("Location", path.as_str()), ("Range", &range)];
            Fault::Answer(answer("204 No Content", &headers, b""))
        }
        "PATCH" if length > manner.largest_part || !starts => {
            Fault::Answer(answer("416 Range Not Satisfiable", &[], b""))
        }
        "PUT" if length > manner.largest_whole => Fault::Answer(answer("413 Content Too Large", &[], b"")),
        "PATCH" | "PUT" => {
            let passes = cut.lock().unwrap()(have, length);
            let digest = seen.target.split_once("digest=").map(|(_, digest)| digest.replace("%3A", ":"));
            take(state, passes.unwrap_or(length), move |state, body| {
                let is_whole = passes.is_none() && body.len() == length;
                let upload = state.uploads[number].as_mut()?;
                if is_whole || manner.keeps == Keeps::Bytes {
                    upload.extend(body);
                }
                if !is_whole {
                    state.breaks += 1;
                    if state.breaks == manner.losing_break {
                        state.uploads[number] = None;
                    }
                    return None;
                }
                if is_part {
                    return Some(answer("202 Accepted", &[("Location", &path)], b""));
                }
                let upload = upload.clone();
                state.stored.insert(digest?, upload);
                Some(answer("201 Created", &[], b""))
            })
        }
        _ => absent(),
    }
}

/// Takes so many bytes of a body, and does something with them.
fn take(
    state: &Arc<Mutex<State>>,
    count: usize,
    then: impl FnOnce(&mut State, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
) -> Fault {
    let state = state.clone();
    let take = move |body: Vec<u8>| {
        let mut state = state.lock().unwrap();
        state.taken += body.len();
        then(&mut state, body)
    };
    Fault::Take(count, Box::new(take))
}
