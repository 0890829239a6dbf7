#!/bin/sh
# A newcomer's walk: start Vigie, follow what it prints, see a process of this machine by KQL
# through the API, cut a machine off the network and release it.
#
#   walk.sh VIGIE [NETNS]
#
# VIGIE is the program; NETNS the script that makes three hosts in network namespaces (needs root).
# Without NETNS, or where namespaces are not to be had, the walk ends before the isolation and says so.
set -eu

vigie=$1
netns=${2:-}
folder=$(mktemp -d)
spaces=vigie-walk-$$
server_pid='' sensor_pid=''
inside=''

leave() {
    status=$?
    trap - EXIT
    [ -z "$sensor_pid" ] || kill "$sensor_pid" 2>/dev/null || true
    [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
    wait
    [ -z "$netns" ] || "$netns" down "$spaces" || true
    if [ "$status" -ne 0 ]; then
        echo "the walk failed; what the server and the sensor said:" >&2
        cat "$folder"/*.log >&2
    fi
    rm -rf "$folder"
    exit "$status"
}
trap leave EXIT INT TERM

say() { echo "-- $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

# until_true SECONDS COMMAND…
until_true() {
    seconds=$1
    shift
    end=$(($(date +%s) + seconds))
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || fail "not within $seconds s: $*"
        sleep 1
    done
}

# start NAME ARGUMENT…: `vigie up`, until it has said everything.
start() {
    name=$1
    shift
    $inside "$vigie" up --data "$folder/data" "$@" >"$folder/$name.log" 2>"$folder/$name.err.log" &
    server_pid=$!
    until_true 60 grep -q 'Ctrl-C stops' "$folder/$name.log"
    url=$(sed -n 's/^Vigie runs on //p' "$folder/$name.log")
}

stop() {
    kill -INT "$server_pid"
    wait "$server_pid" || fail "the server ended with $?"
    server_pid=''
}

value() { sed -n "s/^  $1  *//p" "$folder/first.log" | head -n 1; }

token() {
    $inside curl -sS --cacert "$ca" "$url/$tenant/oauth2/v2.0/token" \
        -d grant_type=client_credentials -d "client_id=$application" \
        --data-urlencode "client_secret=$secret" \
        -d scope=https://api.securitycenter.microsoft.com/.default |
        sed 's/.*"access_token":"\([^"]*\)".*/\1/'
}

# call METHOD PATH [BODY]
call() {
    if [ $# -gt 2 ]; then
        $inside curl -sS --cacert "$ca" -H "Authorization: Bearer $TOKEN" -X "$1" "$url$2" \
            -H 'Content-Type: application/json' -d "$3"
    else
        $inside curl -sS --cacert "$ca" -H "Authorization: Bearer $TOKEN" -X "$1" "$url$2"
    fi
}

# seen TEXT METHOD PATH [BODY]: whether the answer has the text.
seen() {
    text=$1
    shift
    call "$@" | grep -qF "$text"
}

say "start"
start first --listen 127.0.0.1:0
ca=$(value certificate) tenant=$(value tenant)
application=$(value application) secret=$(value secret)
[ -n "$secret" ] || fail "no secret was printed"

say "the three commands to copy"
sed -n '/^Three commands/,/^Ctrl-C/p' "$folder/first.log" | grep '^  ' | sed 's/^  //' >"$folder/copied"
[ "$(wc -l <"$folder/copied")" -eq 3 ] || fail "three commands are printed"
eval "$(sed -n 1p "$folder/copied")"
eval "$(sed -n 2p "$folder/copied")" | grep -qF "\"$(hostname | tr 'A-Z' 'a-z')" ||
    fail "this machine is not in the list"
copied_hunt() { eval "$(sed -n 3p "$folder/copied")" | grep -q '"Results":\[{'; }
until_true 30 copied_hunt

say "run true and find it"
marker=walk-$$-$(date +%s)
run_true() {
    if [ "$(id -u)" -eq 0 ]; then
        /bin/true "$marker"
    else
        # Without root the sensor looks at the list of processes twice a second.
        sh -c 'sleep 3; true' "$marker"
    fi
}
true_found() {
    seen '"Found":1' POST /api/advancedqueries/run \
        "{\"Query\": \"DeviceProcessEvents | where FileName in ('true', 'sh', 'dash') and ProcessCommandLine endswith '$marker' | where DeviceId in ((DeviceInfo | project DeviceId)) | summarize Found = dcount(ProcessCommandLine)\"}"
}
# On a busy machine `true` can end before its command line is read; its row is then incomplete, so
# it is run again.
run_and_find() { run_true && { true_found || { sleep 1; true_found; }; }; }
until_true 30 run_and_find
call POST /api/advancedqueries/run '{"Query": "DeviceProcessEvents | where Nonsense == 1"}' |
    grep -q "Nonsense" || fail "a wrong column is not named"
stop
grep -q '^stopping' "$folder/first.log" || fail "Ctrl-C was not told of"
! grep -qF "$secret" "$folder"/first.err.log || fail "the secret is in the log"

if [ -z "$netns" ] || [ "$(id -u)" -ne 0 ] || ! "$netns" up "$spaces" 2>"$folder/netns.log"; then
    echo "left out: isolating a host needs root and network namespaces: $(cat "$folder/netns.log" 2>/dev/null)"
    netns=''
    exit 0
fi

say "a second start, now for other machines too"
inside="ip netns exec $spaces-server"
start second --listen 10.99.0.1:8443 --no-sensor
! grep -qiE 'secret|password' "$folder/second.log" || fail "a second start prints a secret"
TOKEN=$(token)
key=$($inside "$vigie" tenant enrolment-key --data "$folder/data")
[ -n "$key" ] || fail "no enrolment key"

say "a sensor on another host"
VIGIE_ENROLMENT_KEY=$key ip netns exec "$spaces-sensor" "$vigie" sensor run --server "$url" --ca "$ca" \
    --state-dir "$folder/sensor" --installation-id 7777777777777777777777777777777777777777 \
    --tag walked --allow-response 2>"$folder/sensor.log" &
sensor_pid=$!
until_true 30 seen '"walked"' GET /api/machines
machine=$(call GET "/api/machines?\$filter=machineTags/any(t:%20t%20eq%20'walked')&\$select=id" |
    sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p')
reaches() { ip netns exec "$spaces-sensor" ping -c 1 -W 1 10.99.0.3 >/dev/null 2>&1; }
cut_off() { ! reaches; }
# Ping is not installed everywhere; a connection that is refused at once is reachability too.
if ! command -v ping >/dev/null; then
    reaches() {
        ip netns exec "$spaces-sensor" curl -s --max-time 1 http://10.99.0.3:9/ >/dev/null 2>&1
        [ $? -eq 7 ]
    }
fi
reaches || fail "the host is not reachable before it is isolated"

# finished ACTION
finished() { seen '"status":"Succeeded"' GET "/api/machineactions/$1"; }
# order PATH BODY: prints the action's id.
order() { call POST "$1" "$2" | sed -n 's/.*"id":"\([0-9a-f-]*\)".*/\1/p'; }

say "isolate"
action=$(order "/api/machines/$machine/isolate" '{"Comment": "walk", "IsolationType": "Full"}')
[ -n "$action" ] || fail "the isolation was not taken"
until_true 30 finished "$action"
until_true 5 cut_off

say "release"
action=$(order "/api/machines/$machine/unisolate" '{"Comment": "walk"}')
[ -n "$action" ] || fail "the release was not taken"
until_true 30 finished "$action"
until_true 5 reaches

kill "$sensor_pid"
wait "$sensor_pid" || true
sensor_pid=''
stop
say "walked"
