//! Lists with a query: pages that follow each other, filters, and what they count.

use super::*;
use crate::job::Status;
use serde_json::{Value, json};

/// A host where account A has seven captures, the oldest failed, the next two ended well, and B has one.
async fn host() -> Host {
    let host = Host::start();
    for _ in 0..7 {
        assert_eq!(host.create(SIMPLE).await.status, StatusCode::OK);
    }
    assert_eq!(host.ask_as((B, "b-token"), "POST", "", SIMPLE).await.status, StatusCode::OK);
    let mut jobs = host.engine.jobs.lock().unwrap();
    jobs[0].status = Status::Failed;
    (jobs[1].status, jobs[2].status) = (Status::Success, Status::Success);
    drop(jobs);
    host
}

fn ids(answer: &Value) -> Vec<String> {
    answer["result"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_newest_first_until_there_is_no_next() {
    let host = host().await;
    let (mut found, mut query) = (Vec::new(), "?limit=3".to_owned());
    for counts in [3, 3, 1] {
        let answer = host.ask("GET", &query, "").await.json();
        let info = &answer["result_info"];
        assert_eq!(
            (&info["count"], &info["per_page"], &info["total_count"]),
            (&json!(counts), &json!(3), &json!(7))
        );
        found.extend(ids(&answer));
        query = format!("?limit=3&before={}", info["next"].as_str().unwrap_or("none"));
    }
    assert!(query.ends_with("none"), "{query}");
    assert_eq!(found, (0..7).rev().map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_filter_s_page_counts_what_the_filter_takes() {
    let host = host().await;
    for (query, wanted) in [
        ("?status=success", vec![2, 1]),
        ("?status=failed,success", vec![2, 1, 0]),
        ("?status=failed%2Csuccess&type=simple", vec![2, 1, 0]),
        ("?type=full", vec![]),
        ("?status=pending&type=simple", vec![6, 5, 4, 3]),
    ] {
        let answer = host.ask("GET", query, "").await.json();
        assert_eq!(ids(&answer), wanted.iter().map(|n| id(*n)).collect::<Vec<_>>(), "{query}");
        assert_eq!(answer["result_info"]["total_count"], wanted.len(), "{query}");
    }
    let first = host.ask("GET", "?status=success&limit=1", "").await.json();
    assert_eq!(
        (&first["result_info"]["total_count"], &first["result_info"]["count"]),
        (&json!(2), &json!(1))
    );
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_is_refused_and_a_list_without_one_is_what_the_sdks_know() {
    let host = host().await;
    for (query, status, code) in [
        ("?offset=3", 400, 1003),
        ("?limit=0", 400, 1005),
        ("?status=complete", 400, 1005),
        // The last is another account's.
        (format!("?before={}", id(7)).as_str(), 404, 1001),
        (format!("?before={}", id(99)).as_str(), 404, 1001),
    ] {
        let answer = host.ask("GET", query, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["errors"][0]["code"]),
            (status, &json!(code)),
            "{query}"
        );
    }
    for query in ["", "?"] {
        let answer = host.ask("GET", query, "").await.json();
        assert!(answer.get("result_info").is_none() && ids(&answer).len() == 7, "{query:?}");
    }
}
