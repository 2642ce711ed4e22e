//! What servers say no with, as they were seen to, and what becomes of it.

use hyper::{HeaderMap, StatusCode};

use super::error::Address;
use super::http::refusal;
use super::{endpoint, is_key};
use crate::ports::blobs::BackendError;

fn address() -> Address {
    Address { endpoint: "https://s3.example.org".into(), bucket: "blobs".into(), region: "us-east-1".into() }
}

fn said(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> BackendError {
    let status = StatusCode::from_u16(status).expect("a status");
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().expect("a value"));
    }
    let failure = refusal(status, &map, body.as_bytes());
    let error = object_store::Error::Generic { store: "S3", source: "whatever".into() };
    address().explain(&error, Some(&failure))
}

fn code(status: u16, code: &str) -> BackendError {
    said(status, &[], &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>As it is.</Message></Error>"))
}

#[test]
fn what_a_person_must_change_is_refused_and_says_what() {
    let cases = [
        (code(404, "NoSuchBucket"), "bucket 'blobs' does not exist at https://s3.example.org"),
        (code(403, "InvalidAccessKeyId"), "the access key id is not known there"),
        (code(403, "SignatureDoesNotMatch"), "the secret access key does not belong to"),
        (code(403, "AccessDenied"), "check the access key id, its secret, and its rights"),
        (code(403, "RequestTimeTooSkewed"), "the clock of this machine"),
        (code(400, "ExpiredToken"), "the session token is no longer good"),
        (code(501, "NotImplemented"), "the server cannot do what is needed"),
        (code(400, "InvalidArgument"), "InvalidArgument: As it is."),
        (said(403, &[], ""), "HTTP status 403"),
        (said(401, &[], "<html>no</html>"), "HTTP status 401"),
    ];
    for (error, hint) in cases {
        let BackendError::Refused(why) = &error else { panic!("{error:?}") };
        assert!(why.contains(hint) && why.contains("'blobs'") && why.contains("https://s3.example.org"), "{why}");
    }
}

#[test]
fn a_wrong_region_is_told_with_the_right_one() {
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region \
                     'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>";
    let cases = [
        said(400, &[], malformed),
        said(301, &[("x-amz-bucket-region", "eu-west-1")], "<Error><Code>PermanentRedirect</Code></Error>"),
        said(307, &[("x-amz-bucket-region", "eu-west-1"), ("location", "https://elsewhere")], ""),
    ];
    for error in cases {
        let BackendError::Refused(why) = &error else { panic!("{error:?}") };
        assert!(why.contains("it is in the region 'eu-west-1' and not in 'us-east-1'"), "{why}");
    }
    let BackendError::Refused(why) = said(301, &[], "") else { panic!("a redirect") };
    assert!(why.contains("the region 'us-east-1' or the endpoint is wrong"), "{why}");
}

#[test]
fn what_passes_by_itself_is_transient_and_no_room_is_full() {
    for error in [code(503, "SlowDown"), code(500, "InternalError"), code(400, "RequestTimeout"), said(502, &[], "")] {
        assert!(matches!(&error, BackendError::Transient(why) if why.contains("'blobs'")), "{error:?}");
    }
    for error in [code(403, "QuotaExceeded"), code(507, "XMinioStorageFull"), said(507, &[], "")] {
        assert!(matches!(&error, BackendError::Full(why) if why.contains("'blobs'")), "{error:?}");
    }
    assert_eq!(code(404, "NoSuchKey"), BackendError::Missing);
    assert_eq!(said(404, &[], ""), BackendError::Missing);
}

#[test]
fn what_a_server_says_is_cut_to_a_line() {
    let long =
        format!("<Error><Code>InvalidArgument</Code><Message>a\nb\u{1b}[31m{}</Message></Error>", "x".repeat(9_999));
    let BackendError::Refused(why) = said(400, &[], &long) else { panic!("refused") };
    assert!(why.len() < 500 && !why.contains(['\n', '\u{1b}']), "{why}");
}

#[test]
fn a_bucket_is_in_the_host_name_unless_it_is_to_be_in_the_path() {
    let at = |text: &str, path_style| endpoint(&Address { endpoint: text.into(), ..address() }, path_style);
    assert_eq!(at("https://s3.example.org", true).as_deref(), Ok("https://s3.example.org"));
    assert_eq!(at("https://s3.example.org", false).as_deref(), Ok("https://blobs.s3.example.org"));
    assert_eq!(at("http://[::1]:9000", true).as_deref(), Ok("http://[::1]:9000"));
    for wrong in ["s3.example.org", "https://", "http://x/y", "http://x?y", "file:///x"] {
        assert!(at(wrong, true).is_err(), "{wrong}");
    }
}

#[test]
fn a_key_is_what_fits_into_a_header() {
    assert!(is_key("AKIA/+=-_") && !is_key("") && !is_key("a b") && !is_key("a\n") && !is_key("ä"));
}
