//! `trawl capture`: start, list, show, watch, stop, drop; `download` has a file of its own. Owns how the client's answers become a result.
//!
//! Invariant: a capture that was waited for is a success only if the server says so and its counts agree.

use super::args::{CaptureArgs, CaptureCommand, StartArgs};
use super::client::{self, Client};
use super::wait::{self, Display};
use super::{Error, Outcome, download, fetch, listing, out, report, request};
use crate::chain::printable;
use crate::job::Progress;
use serde_json::{Value, json};

/// Runs one command against the server.
///
/// # Errors
/// [`Error`]: wrong arguments, or what the server said.
pub async fn run(args: CaptureArgs) -> Result<Outcome, Error> {
    let json = args.server.json;
    if let CaptureCommand::Start(start) = &args.command {
        let body = request::body(start)?;
        let client = Client::new(&args.server, |name| std::env::var(name).ok())?;
        return self::start(&client, start, &body, json).await;
    }
    let client = Client::new(&args.server, |name| std::env::var(name).ok())?;
    match args.command {
        CaptureCommand::Show(args) => show(&client, &args.id, json).await,
        CaptureCommand::Watch(args) => watch(&client, &args.id, json).await,
        CaptureCommand::Download(args) => download::run(&client, &args, None, json).await,
        CaptureCommand::Fetch(fetch) => {
            fetch::run(&client, args.server.account.as_deref(), fetch, json).await
        }
        CaptureCommand::Stop(args) => {
            client.stop(&args.id).await?;
            let text =
                format!("{}: stop requested; `trawl capture show {}` has the rest\n", args.id, args.id);
            Outcome::done(text, &json!({"id": args.id, "stop_requested": true}), json)
        }
        CaptureCommand::Drop(args) => {
            client.discard(&args.id).await?;
            let text = format!("{}: what was not delivered is dropped\n", args.id);
            Outcome::done(text, &json!({"id": args.id, "dropped": true}), json)
        }
        CaptureCommand::List(args) => {
            let list = listing::list(&client, &args).await?;
            note(&client);
            Outcome::done(report::captures(&list), &list, json)
        }
        CaptureCommand::Start(_) => Err(Error::NoId),
    }
}

/// Tells what the server said beside its last result, which has no member for it: on standard error, so that `--json` prints the
/// result alone.
fn note(client: &Client) {
    for message in client.take_notes() {
        out::note(&format!("note {}: {}", message.code, printable(&message.message)));
    }
}

async fn start(
    client: &Client,
    args: &StartArgs,
    body: &request::Body,
    json: bool,
) -> Result<Outcome, Error> {
    let capture = client.create(body).await?;
    let Some(id) = capture.get("id").and_then(Value::as_str).map(str::to_owned) else {
        return Err(Error::NoId);
    };
    if !args.wait {
        return Outcome::done(report::members(&capture), &capture, json);
    }
    let interrupts = wait::interrupts().map_err(Error::Runtime)?;
    out::note(&format!("capture {}", printable(&id)));
    let progress = wait::follow(client, &id, &Display::new(args.time_limit), interrupts).await?;
    ended(client, &id, &progress, json).await
}

/// Follows to the end. Ctrl-C ends this process alone, as any other: nothing of the capture is this process's.
async fn watch(client: &Client, id: &str, json: bool) -> Result<Outcome, Error> {
    let capture = client.get(id).await?;
    let seconds = capture.get("time_limit").and_then(Value::as_f64).unwrap_or(0.0);
    let (_never_pressed, interrupts) = tokio::sync::mpsc::channel(1);
    let progress = wait::follow(client, id, &Display::new(seconds), interrupts).await?;
    ended(client, id, &progress, json).await
}

async fn ended(client: &Client, id: &str, progress: &Progress, json: bool) -> Result<Outcome, Error> {
    let capture = client.get(id).await?;
    note(client);
    let message = capture.get("error_message").and_then(Value::as_str);
    let balanced = progress.ledger.check().is_ok();
    let whole = json!({"capture": capture, "progress": progress, "balanced": balanced});
    let mut outcome = Outcome::done(report::ended(progress, message), &whole, json)?;
    outcome.is_success = progress.status == crate::job::Status::Success && balanced;
    Ok(outcome)
}

async fn show(client: &Client, id: &str, json: bool) -> Result<Outcome, Error> {
    let capture = client.get(id).await?;
    note(client);
    // A server that is not ours has no progress; the capture itself is then all there is.
    let progress = match client.progress(id).await {
        Ok(progress) => Some(progress),
        Err(client::Error::Refused { status: 404, .. } | client::Error::NotTheApi { status: 404, .. }) => {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut text = report::members(&capture);
    if let Some(progress) = &progress {
        text += &format!("\n{}\n{}", report::objects(&progress.objects), report::ledger(&progress.ledger));
        text += &report::on_spool(progress);
    }
    Outcome::done(text, &json!({"capture": capture, "progress": progress}), json)
}
