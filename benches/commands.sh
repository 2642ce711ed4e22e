#!/usr/bin/env bash
# Whole commands on generated trees: 10,000 documents, and 100 running modules. Prints what each command says of itself.
# usage: benches/commands.sh [path of the trueup binary]
set -euo pipefail
trueup=$(realpath "${1:-target/release/trueup}")
work=$(mktemp -d)
trap '"$trueup" down -f "$work/100/manifests" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

hub() { printf 'apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: { portRange: { from: 22000, to: 22400 } }\n'; }

tree=$work/10000/manifests
mkdir -p "$tree"; hub >"$tree/hub.yaml"
for ((d = 0; d < 100; d++)); do
    mkdir "$tree/$d"
    for ((i = d * 100; i < d * 100 + 100; i++)); do
        printf 'apiVersion: trueup/v1\nkind: Service\nmetadata:\n  name: s%d\n  labels: { tier: data, team: t%d }\nspec:\n  command: [sleep, "100000"]\n  env:\n    LOG_LEVEL: info\n    NUMBER: "%d"\n  restart: { policy: always, backoff: { initial: 100ms, max: 5m } }\n  stop: { grace: 2s }\n  suspend: true\n' \
            "$i" $((i % 7)) "$i" >"$tree/$d/s$i.yaml"
    done
done
echo "== 10,000 documents, none running"
cd "$work/10000"
echo "validate:        $("$trueup" validate | tail -1)"
echo "first run:       $("$trueup" reconcile --once | tail -1)"
echo "nothing to do:   $("$trueup" reconcile --once | tail -1)"

tree=$work/100/manifests
mkdir -p "$tree"; hub >"$tree/hub.yaml"
for ((i = 0; i < 100; i++)); do
    printf 'apiVersion: trueup/v1\nkind: Service\nmetadata: { name: m%d }\nspec:\n  command: [trueup, demo, mailbox, --row, m%d]\n  port: auto\n  registersAs: m%d\n  env: { LEVEL: a }\n' "$i" "$i" "$i" >"$tree/m$i.yaml"
done
echo "== 100 demo mailboxes"
cd "$work/100"
echo "cold to ready:   $("$trueup" reconcile --once | tail -1)"
echo "nothing to do:   $("$trueup" reconcile --once | tail -1)"
sed -i 's/LEVEL: a/LEVEL: b/' "$tree/m50.yaml"
echo "change one:      $("$trueup" reconcile --once | tail -1)"
echo "keeper memory:   $(grep '^Pss:' "/proc/$(cat .trueup/keeper.lock)/smaps_rollup")"
echo "stop all:        $("$trueup" down | tail -1)"
