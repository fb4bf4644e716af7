# shellcheck shell=bash
# Processes by name: each has a folder in the cluster's folder, which is its working directory and
# holds its `pid` and its output. Beside the id stands when the process began, so that whoever gets
# the id later is never taken for it.

# shellcheck disable=SC2154 # $dir is the cluster's folder, set by the script that reads this.

# Longest wait for anything that should happen.
patience=${CLUSTER_PATIENCE:-90}

say() { echo "$*" >&2; }

die() {
    say "dev/cluster: $*"
    exit 1
}

seconds_since() { awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $1 }"; }

# Starts a process that survives this script. It notes its own id before it becomes what it is to be:
# were this script to do that, and be killed before, nobody would know of the process.
spawn() {
    local name=$1
    shift
    mkdir -p "$dir/$name"
    (
        cd "$dir/$name" || exit
        rm -f pid
        # shellcheck disable=SC2016
        setsid bash -c '. "$1"; echo "$$ $(beginning_of $$)" >pid.new; mv pid.new pid; exec "${@:2}"' \
            spawn "$root/dev/lib/process.sh" "$@" </dev/null >>output 2>&1 9>&- &
        until [ -f pid ] || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
    )
}

# The id of a process that is alive, paused or not. One that is being killed is alive until it holds
# nothing any more.
pid_of() {
    local pid beginning
    [ -f "$dir/$1/pid" ] && read -r pid beginning <"$dir/$1/pid" || return 1
    [ -n "$beginning" ] && [ "$(beginning_of "$pid")" = "$beginning" ] || return 1
    case $(status_field "$pid" State) in
    # Where nobody reaps orphans the dead stay in the table. A killed process holds its ports until
    # its last thread ends.
    Z* | X*) [ "$(status_field "$pid" Threads)" -gt 1 ] || return 1 ;;
    esac
    echo "$pid"
}

# When a process began, in ticks since the machine started; nothing if there is no such process.
beginning_of() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
    # The name in parentheses may hold anything.
    read -ra fields <<<"${stat##*)}"
    echo "${fields[19]}"
}

status_field() {
    local name value
    while IFS=$':\t' read -r name value; do
        [ "$name" != "$2" ] || echo "$value"
    done 2>/dev/null <"/proc/$1/status"
}

state_of() { if [[ $(status_field "$1" State) == T* ]]; then echo paused; else echo running; fi; }

megabytes() { status_field "$1" VmRSS | awk '{ print int($1 / 1024) }'; }

# The names of all processes there ever were in this cluster, those of one kind if it is given.
processes() {
    local file
    for file in "$dir/${1:-}"*/pid; do
        [ -f "$file" ] && basename "$(dirname "$file")"
    done
    return 0
}

signal_to() {
    local pid
    if pid=$(pid_of "$2"); then kill "-$1" "$pid" 2>/dev/null || true; fi
}

# Calls a function until it succeeds; fails when that takes too long.
await() {
    local deadline=$((SECONDS + patience))
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

gone() { ! pid_of "$1" >/dev/null; }

# Ends all processes of a kind; who ignores the request for long is killed.
stop_all() {
    local signal=$1 names name
    names=$(processes "$2")
    for name in $names; do
        signal_to "$signal" "$name"
        # A frozen process takes the request only when it goes on.
        signal_to CONT "$name"
    done
    for name in $names; do
        await gone "$name" || { signal_to KILL "$name" && await gone "$name"; }
    done
}

# Whether the process listens at that port of the loopback, which a foreign one at the same port
# does not prove.
listens() {
    local inode port
    printf -v port ':%04X' "$2"
    inode=$(awk -v port="$port" '$4 == "0A" && index($2, port) { print $10 }' /proc/net/tcp)
    [ -n "$inode" ] && find "/proc/$1/fd" -lname "socket:\[$inode\]" 2>/dev/null | grep -q .
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Takes the cluster down when its owner is gone, however that ended.
watch_owner() {
    # shellcheck disable=SC2154
    [ -n "$owner" ] || return 0
    # shellcheck disable=SC2016,SC2154
    spawn owner bash -c 'tail --pid="$1" -f /dev/null; exec "$2" down --wipe --dir "$3"' watch \
        "$owner" "$root/dev/cluster" "$dir"
}

forget_owner() {
    local pid
    pid=$(pid_of owner) || return 0
    # The watcher itself becomes the command that stops the cluster.
    [ "$pid" = $$ ] || kill -- "-$pid" 2>/dev/null || true
}
