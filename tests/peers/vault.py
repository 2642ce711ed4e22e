"""A second vault, written from the description of the API alone: notes, triggers, marks and deliveries. Tests hold it against the demo vault.

It reads PORT (0 takes a free one), PARACHUTE_HOME (without it nothing outlives the process), PARACHUTE_HUB_ORIGIN, PARACHUTE_HUB_ORIGINS,
PARACHUTE_HUB_LOOPBACK, PARACHUTE_VAULT_NAME and HOOK_CONCURRENCY. PEER_VAULTS names further vaults, with commas between. It needs PyJWT.
"""

import datetime
import json
import os
import queue
import re
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

ENV = os.environ
ORIGIN = (ENV.get("PARACHUTE_HUB_ORIGIN") or "http://127.0.0.1:1939").rstrip("/")
ISSUERS = {ORIGIN} | {one.rstrip("/") for one in re.split(r"[,\s]+", ENV.get("PARACHUTE_HUB_ORIGINS", "")) if one}
LOOPBACK = (ENV.get("PARACHUTE_HUB_LOOPBACK") or ORIGIN).rstrip("/")
VAULTS = {ENV.get("PARACHUTE_VAULT_NAME") or "default"} | {one for one in ENV.get("PEER_VAULTS", "").split(",") if one}
OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "exists")
LEVELS = {"read": 0, "write": 1, "admin": 2}
LONGEST_BODY = 4 << 20
# Redirects would carry the bearer elsewhere, and proxies have no business on loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status, **body):
        super().__init__(status)
        self.status, self.body = status, body


class Hub:
    """The hub's keys and its list of revoked tokens."""

    def __init__(self):
        self.lock = threading.Lock()
        self.keys, self.keys_at, self.forced_at = {}, None, None
        self.revoked, self.revoked_at = None, None

    @staticmethod
    def fetch(path):
        with DIRECT.open(LOOPBACK + path, timeout=5) as answer:
            return json.load(answer)

    def load_keys(self):
        try:
            keys = jwt.PyJWKSet.from_dict(self.fetch("/.well-known/jwks.json")).keys
        except Exception:
            raise Refused(401, error="Unauthorized", message="the hub's keys cannot be fetched") from None
        self.keys, self.keys_at = {key.key_id: key for key in keys}, time.monotonic()

    def decode(self, token, audience):
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as error:
            raise Refused(401, error="Unauthorized", message=str(error)) from None
        needed = ["exp", "iss", "aud", "sub", "jti"]
        with self.lock:
            if self.keys_at is None or time.monotonic() - self.keys_at > 300:
                self.load_keys()
            for last in (False, True):
                try:
                    if kid not in self.keys:
                        raise jwt.InvalidSignatureError("the hub publishes no such key")
                    return jwt.decode(
                        token, self.keys[kid], algorithms=["RS256"], audience=audience, options={"require": needed, "verify_iat": False}
                    )
                except jwt.InvalidSignatureError as error:
                    if last or (self.forced_at is not None and time.monotonic() - self.forced_at < 10):
                        raise Refused(401, error="Unauthorized", message=str(error)) from None
                    self.forced_at = time.monotonic()
                    self.load_keys()
                except jwt.PyJWTError as error:
                    raise Refused(401, error="Unauthorized", message=str(error)) from None

    def is_revoked(self, jti):
        with self.lock:
            if self.revoked_at is None or time.monotonic() - self.revoked_at > 60:
                try:
                    self.revoked = set(self.fetch("/.well-known/parachute-revocation.json")["jtis"])
                    self.revoked_at = time.monotonic()
                except Exception:
                    if self.revoked is None:
                        message = "token cannot be validated: revocation list unavailable"
                        raise Refused(401, error="Unauthorized", message=message) from None
            return jti in self.revoked

    def admit(self, header, vault, level):
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            if level == "admin":
                raise Refused(401, error="Unauthorized", message="API key required")
            return
        claims = self.decode(token.strip(), f"vault.{vault}")
        if claims["iss"].rstrip("/") not in ISSUERS:
            raise Refused(401, error="Unauthorized", message="another issuer")
        if self.is_revoked(claims["jti"]):
            raise Refused(401, error="Unauthorized", message="token has been revoked")
        scopes = claims.get("scope", "").split()
        if any(scope == f"vault:{verb}" for scope in scopes for verb in LEVELS):
            raise Refused(401, error="Unauthorized", message="a scope that names no vault")
        if claims.get("vault_scope") and vault not in claims["vault_scope"]:
            raise Refused(403, error="Forbidden", error_type="vault_scope_mismatch", message="another vault", required_vault=vault)
        held = [LEVELS[verb] for verb in LEVELS if f"vault:{vault}:{verb}" in scopes]
        if max(held, default=-1) < LEVELS[level]:
            raise Refused(
                403, error="Forbidden", error_type="insufficient_scope", message=f"needs vault:{vault}:{level}",
                required_scope=f"vault:{level}", granted_scopes=scopes,
            )


HUB = Hub()


class Store:
    """Everything, in one database; a lock holds whoever writes."""

    def __init__(self):
        home = ENV.get("PARACHUTE_HOME")
        path = ":memory:"
        if home:
            os.makedirs(os.path.join(home, "peer"), exist_ok=True)
            path = os.path.join(home, "peer", "vault.db")
        self.lock = threading.RLock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY AUTOINCREMENT, vault, id, body)")
        self.db.execute("CREATE TABLE IF NOT EXISTS triggers (vault, name, body, PRIMARY KEY (vault, name))")

    def run(self, sql, *values):
        with self.lock:
            cursor = self.db.execute(sql, values)
            return cursor.fetchall(), cursor

    def note(self, vault, note_id):
        rows, _ = self.run("SELECT body FROM notes WHERE vault = ? AND id = ?", vault, note_id)
        return json.loads(rows[0][0]) if rows else None

    def notes(self, vault):
        rows, _ = self.run("SELECT body FROM notes WHERE vault = ? ORDER BY number", vault)
        return [json.loads(body) for (body,) in rows]

    def add(self, vault, note):
        with self.lock:
            _, cursor = self.run("INSERT INTO notes (vault, id, body) VALUES (?, '', '')", vault)
            note = {"id": f"note-{cursor.lastrowid}", **note}
            self.run("UPDATE notes SET id = ?, body = ? WHERE number = ?", note["id"], json.dumps(note), cursor.lastrowid)
            return note

    def write(self, vault, note):
        self.run("UPDATE notes SET body = ? WHERE vault = ? AND id = ?", json.dumps(note), vault, note["id"])

    def remove(self, vault, note_id):
        return self.run("DELETE FROM notes WHERE vault = ? AND id = ?", vault, note_id)[1].rowcount > 0

    def triggers(self, vault):
        rows, _ = self.run("SELECT body FROM triggers WHERE vault = ? ORDER BY name", vault)
        return [json.loads(body) for (body,) in rows]

    def put_trigger(self, vault, trigger):
        with self.lock:
            before = next((one for one in self.triggers(vault) if one["name"] == trigger["name"]), None)
            while before and now() <= before["updated_at"]:
                time.sleep(0.001)
            stored = {**trigger, "created_at": before["created_at"] if before else now(), "updated_at": now()}
            self.run("INSERT OR REPLACE INTO triggers VALUES (?, ?, ?)", vault, trigger["name"], json.dumps(stored))
            return stored

    def remove_trigger(self, vault, name):
        return self.run("DELETE FROM triggers WHERE vault = ? AND name = ?", vault, name)[1].rowcount > 0


STORE = Store()


def check_trigger(body):
    def wrong(what):
        raise Refused(400, error=what)

    if not isinstance(body, dict):
        wrong("the body must be a JSON object")
    name, when, action = body.get("name"), body.get("when"), body.get("action")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        wrong("`name` is required and must match [A-Za-z0-9][A-Za-z0-9_-]*")
    events = body.get("events", ["created", "updated"])
    if not isinstance(events, list) or any(event not in ("created", "updated") for event in events):
        wrong("`events` must be a list of 'created' and 'updated'")
    if not isinstance(when, dict):
        wrong("`when` is required and must be an object")
    fields = when.get("metadata", {})
    if not isinstance(fields, dict):
        wrong("`when.metadata` must be an object")
    for field, comparisons in fields.items():
        if not isinstance(comparisons, dict):
            wrong(f"`when.metadata.{field}` must be an object of operators")
        for operator in comparisons:
            if operator not in OPERATORS:
                wrong(f"`when.metadata.{field}` has the unknown operator \"{operator}\"")
    if not isinstance(action, dict):
        wrong("`action` is required and must be an object")
    webhook = action.get("webhook")
    if not isinstance(webhook, str) or not webhook:
        wrong("`action.webhook` is required")
    url = urllib.parse.urlsplit(webhook)
    if not url.scheme or not url.netloc:
        wrong(f"`action.webhook` is not a valid URL: {webhook}")
    if url.scheme not in ("http", "https"):
        wrong(f"`action.webhook` must use http or https, not {url.scheme}")
    if "auth" in action:
        auth = action["auth"]
        if not isinstance(auth, dict):
            wrong("`action.auth` must be an object")
        if "bearer" in auth and (not isinstance(auth["bearer"], str) or not auth["bearer"]):
            wrong("`action.auth.bearer` must be a text")
    return {"name": name, "events": events, "when": when, "action": action}


def shown(trigger):
    trigger = json.loads(json.dumps(trigger))
    if "bearer" in (trigger["action"].get("auth") or {}):
        trigger["action"]["auth"]["bearer"] = "[REDACTED]"
    return trigger


def compare(value, operator, wanted):
    if operator == "exists":
        return (value is not None) == wanted
    if operator == "eq":
        return value == wanted
    if operator == "ne":
        return value != wanted
    if operator in ("in", "not_in"):
        return (value in wanted) == (operator == "in")
    if value is None:
        return False
    left, right = ((isinstance(one, str), one) for one in (value, wanted))
    return {"gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}[operator]


def fires(trigger, note):
    name, when, metadata = trigger["name"], trigger["when"], note["metadata"]
    if metadata.get(f"{name}_pending_at") or metadata.get(f"{name}_rendered_at"):
        return False
    if not set(when.get("tags") or []) <= set(note["tags"]):
        return False
    if isinstance(when.get("has_content"), bool) and when["has_content"] != bool(note["content"].strip()):
        return False
    if any(metadata.get(key) is not None for key in when.get("missing_metadata") or []):
        return False
    if any(metadata.get(key) is None for key in when.get("has_metadata") or []):
        return False
    for field, comparisons in (when.get("metadata") or {}).items():
        if not all(compare(metadata.get(field), operator, wanted) for operator, wanted in comparisons.items()):
            return False
    return True


WAITING = queue.Queue(maxsize=100_000)


def dispatch(vault, event, note):
    for trigger in STORE.triggers(vault):
        try:
            wanted = event in trigger["events"] and fires(trigger, note)
        except Exception:
            wanted = False
        if wanted:
            WAITING.put((vault, trigger, event, note["id"]))


def work():
    while True:
        vault, trigger, event, note_id = WAITING.get()
        try:
            deliver(vault, trigger, event, note_id)
        except Exception as error:
            print(f"[trigger:{trigger['name']}] {note_id}: {error}", flush=True)


def deliver(vault, trigger, event, note_id):
    pending, rendered = f"{trigger['name']}_pending_at", f"{trigger['name']}_rendered_at"
    with STORE.lock:
        note = STORE.note(vault, note_id)
        if note is None or note["metadata"].get(pending) or note["metadata"].get(rendered):
            return
        claimed = {**note, "metadata": {**note["metadata"], pending: now()}}
        STORE.write(vault, claimed)
    dispatch(vault, "updated", claimed)
    action = trigger["action"]
    fields = ("id", "content", "path", "tags", "metadata", "attachments", "createdAt", "updatedAt")
    body = {"trigger": trigger["name"], "event": event, "note": {"attachments": [], **{key: note[key] for key in fields if key in note}}}
    request = urllib.request.Request(action["webhook"], json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST")
    bearer = (action.get("auth") or {}).get("bearer")
    if bearer:
        request.add_unredirected_header("Authorization", f"Bearer {bearer}")
    with DIRECT.open(request, timeout=action.get("timeout", 60_000) / 1000) as response:
        text = response.read(LONGEST_BODY)
    answer = json.loads(text) if text else {}
    with STORE.lock:
        fresh = STORE.note(vault, note_id)
        if fresh is None:
            return
        if answer.get("skipped_reason"):
            fresh["metadata"] = {**note["metadata"], f"{trigger['name']}_skipped_reason": answer["skipped_reason"]}
        else:
            fresh["metadata"].pop(pending, None)
            fresh["metadata"].update(answer.get("metadata") or {})
            fresh["content"] = answer.get("content", fresh["content"])
        fresh["metadata"][rendered] = now()
        STORE.write(vault, fresh)
    dispatch(vault, "updated", fresh)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer must not wait for the acknowledgement of its own headers.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, LONGEST_BODY))
        try:
            status, value = self.route(body)
        except Refused as refused:
            status, value = refused.status, refused.body
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def route(self, body):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        if len(parts) < 3 or parts[0] != "vault":
            raise Refused(404, error="Not found")
        vault, rest = parts[1], parts[2:]
        if vault not in VAULTS:
            raise Refused(404, error="Vault not found", vault=vault)
        if rest == ["health"]:
            return 200, {"status": "ok", "vault": vault}
        if rest[0] != "api" or len(rest) not in (2, 3):
            raise Refused(404, error="Not found")
        item = rest[2] if len(rest) == 3 else None
        if rest[1] == "triggers":
            HUB.admit(self.headers.get("Authorization"), vault, "admin")
            return self.triggers(vault, item, body)
        if rest[1] == "notes":
            HUB.admit(self.headers.get("Authorization"), vault, "read" if self.command == "GET" else "write")
            return self.notes(vault, item, query, body)
        raise Refused(404, error="Not found")

    def triggers(self, vault, name, body):
        if name is None:
            if self.command == "GET":
                return 200, {"triggers": [shown(trigger) for trigger in STORE.triggers(vault)]}
            if self.command == "POST":
                try:
                    body = json.loads(body)
                except ValueError:
                    raise Refused(400, error="Invalid JSON body") from None
                return 200, {"trigger": shown(STORE.put_trigger(vault, check_trigger(body)))}
            raise Refused(405, error="Method not allowed")
        if self.command == "GET":
            for trigger in STORE.triggers(vault):
                if trigger["name"] == name:
                    return 200, {"trigger": shown(trigger)}
            raise Refused(404, error="Not found", name=name)
        if self.command == "DELETE":
            if STORE.remove_trigger(vault, name):
                return 200, {"deleted": name}
            raise Refused(404, error="Not found", name=name)
        raise Refused(405, error="Method not allowed")

    def notes(self, vault, note_id, query, body):
        if note_id is None:
            if self.command == "GET":
                return 200, self.list(vault, query)
            if self.command != "POST":
                raise Refused(405, error="Method not allowed")
            sent, time_now = json.loads(body), now()
            note = {"content": sent.get("content", ""), "path": sent.get("path"), "tags": sent.get("tags", []),
                    "metadata": sent.get("metadata", {}), "createdAt": time_now, "updatedAt": time_now}
            note = STORE.add(vault, note)
            dispatch(vault, "created", note)
            return 201, note
        with STORE.lock:
            note = STORE.note(vault, note_id)
            if note is None:
                raise Refused(404, error="Not found")
            if self.command == "GET":
                return 200, note
            if self.command == "DELETE":
                STORE.remove(vault, note_id)
                return 200, {"deleted": True, "id": note_id}
            if self.command != "PATCH":
                raise Refused(405, error="Method not allowed")
            patch = json.loads(body)
            if "if_updated_at" in patch and patch["if_updated_at"] != note["updatedAt"]:
                raise Refused(409, error="conflict", error_type="conflict", current_updated_at=note["updatedAt"], note_id=note_id)
            if "if_updated_at" not in patch and patch.get("force") is not True:
                raise Refused(428, error="precondition_required", error_type="precondition_required", note_id=note_id)
            merged = {**note["metadata"], **(patch.get("metadata") or {})}
            note["metadata"] = {key: value for key, value in merged.items() if value is not None}
            note["content"] = patch.get("content", note["content"])
            tags = patch.get("tags") or {}
            note["tags"] = [tag for tag in dict.fromkeys(note["tags"] + tags.get("add", [])) if tag not in tags.get("remove", [])]
            if "metadata" in patch or "content" in patch:
                note["updatedAt"] = now()
            STORE.write(vault, note)
        if "metadata" in patch or "content" in patch:
            dispatch(vault, "updated", note)
        return 200, {**note, "created": False}

    @staticmethod
    def list(vault, query):
        for key in query:
            field = re.fullmatch(r"meta\[([^\]]+)\]\[[^\]]+\]", key)
            if field and field[1] not in ("created_at", "updated_at"):
                raise Refused(400, error=f"{field[1]} is not indexed", code="FIELD_NOT_INDEXED")
        tags = [tag for tag in query.get("tag", "").split(",") if tag]
        some = any if len(tags) > 1 and query.get("tag_match") != "all" else all
        found = [note for note in STORE.notes(vault) if some(tag in note["tags"] for tag in tags)]
        if query.get("sort") == "desc":
            found.reverse()
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 50))
        keys = query.get("include_metadata")
        out = []
        for note in found[offset:offset + limit]:
            note = dict(note)
            if query.get("include_content") not in ("true", "1"):
                del note["content"]
            if keys and keys not in ("true", "1"):
                note["metadata"] = {key: value for key, value in note["metadata"].items() if key in keys.split(",")}
            out.append(note)
        return out


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    port = int(ENV.get("PORT") or 0)
    server = Server(("127.0.0.1", port), Handler)
    try:
        concurrency = max(1, int(ENV.get("HOOK_CONCURRENCY") or 2))
    except ValueError:
        concurrency = 2
    for _ in range(concurrency):
        threading.Thread(target=work, daemon=True).start()
    print(f"vault listens port={server.server_address[1]} pid={os.getpid()}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
