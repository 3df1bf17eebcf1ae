#!/bin/sh
# KAFKA_FOO_BAR=x becomes foo.bar=x, as in the official image ("__" is "_"); the log folder is formatted once.
set -eu
properties=/tmp/server.properties
export KAFKA_LOG_DIRS="${KAFKA_LOG_DIRS:-/var/lib/kafka/data}"
env | grep '^KAFKA_' | grep -vE '^KAFKA_(HEAP_OPTS|OPTS)=' | while IFS='=' read -r name value; do
    printf '%s=%s\n' "$(printf %s "${name#KAFKA_}" | tr 'A-Z_' 'a-z.' | sed 's/\.\./_/g')" "$value"
done >"$properties"
[ -f "$KAFKA_LOG_DIRS/meta.properties" ] || /opt/kafka/bin/kafka-storage.sh format -t "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" -c "$properties" >/dev/null
# shellcheck disable=SC2086 # several options in one word, as the official image takes them
exec java ${KAFKA_HEAP_OPTS:--Xmx512m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '/opt/kafka/libs/*' kafka.Kafka "$properties"
