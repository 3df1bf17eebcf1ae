#!/bin/sh
# What this project uses of the official entrypoint: POSTGRES_{USER,PASSWORD,DB}, each also as a _FILE; makes the
# database once, as the user postgres, and starts the server.
set -eu
setting() { # name, default
    eval "file=\${$1_FILE:-}"
    # shellcheck disable=SC2154 # set by the line above
    if [ -n "$file" ]; then eval "$1=\$(cat \"\$file\")"; else eval "$1=\${$1:-$2}"; fi
}
setting POSTGRES_USER postgres; setting POSTGRES_PASSWORD ""; setting POSTGRES_DB "$POSTGRES_USER"
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"; chown -R postgres:postgres "$PGDATA"; chmod 700 "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "$POSTGRES_PASSWORD" ] || { echo "POSTGRES_PASSWORD is not set" >&2; exit 1; }
    word=$(mktemp); printf '%s\n' "$POSTGRES_PASSWORD" >"$word"
    initdb -U "$POSTGRES_USER" --pwfile="$word" --auth-local=trust --auth-host=scram-sha-256 >/dev/null; rm -f "$word"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=" -w start >/dev/null
    [ "$POSTGRES_DB" = postgres ] || createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
fi
[ "$1" = postgres ] && { shift; set -- postgres -c "listen_addresses=*" "$@"; }
exec "$@"
