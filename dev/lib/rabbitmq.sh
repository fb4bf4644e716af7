# shellcheck shell=bash
# Debian's RabbitMQ, several nodes of it, each in the folder nodeN of the cluster's folder.

# shellcheck disable=SC2154 # $dir, $nodes, $base_port: set by the script that reads this.

rabbitmq=/usr/lib/rabbitmq
epmd=/usr/lib/erlang/bin/epmd

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_rabbitmq() {
    [ -x $rabbitmq/bin/rabbitmq-server ] || install_quietly rabbitmq-server
}

# Installs a package without a service that starts now or at the next boot: nobody asked for one.
install_quietly() {
    command -v apt-get >/dev/null || die "$1 is missing, and is installed by apt-get only"
    say "installing $1"
    local policy=/usr/sbin/policy-rc.d ours=false installed=false
    if [ ! -e $policy ]; then
        ours=true
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    if as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "$1" >/dev/null; then
        installed=true
    fi
    [ $ours = false ] || as_root rm -f $policy
    [ $installed = true ] || die "$1 could not be installed"
    as_root systemctl --quiet disable "$1" >/dev/null 2>&1 || true
}

node_name() { echo "rabbit$1@localhost"; }

urls() {
    local node
    for node in $(seq "$nodes"); do echo "amqp://guest:guest@127.0.0.1:$((base_port + node))"; done
}

address_of() {
    case $1 in
    epmd) echo "127.0.0.1:$base_port" ;;
    node*) echo "amqp://guest:guest@127.0.0.1:$((base_port + ${1#node}))" ;;
    roomwire*) echo "http://127.0.0.1:$((base_port + 20 + ${1#roomwire}))" ;;
    haproxy) echo "http://127.0.0.1:$((base_port + 30))" ;;
    esac
}

prepare_folder() {
    [ -f "$dir/.erlang.cookie" ] || {
        tr -dc '[:upper:]' </dev/urandom | head -c 20 >"$dir/.erlang.cookie" || true
        chmod 400 "$dir/.erlang.cookie"
    }
    # Erlang looks for each module in every folder of its path. Without the plugins that no node
    # uses a node is up in half the time.
    mkdir -p "$dir/home/sbin" "$dir/home/plugins"
    local installed plugin
    installed=$(dirname "$(dirname "$(readlink -f $rabbitmq/bin/rabbitmq-server)")")
    ln -sf "$installed"/sbin/* "$dir/home/sbin/"
    for plugin in "$installed"/plugins/*; do
        case $(basename "$plugin") in
        rabbitmq_prelaunch-*) ;;
        rabbitmq_* | amqp10_client-* | amqp_client-*) continue ;;
        cowboy-* | cowlib-* | eetcd-* | gun-* | prometheus-*) continue ;;
        esac
        ln -sf "$plugin" "$dir/home/plugins/"
    done
    : >"$dir/environment"
    echo '[].' >"$dir/plugins"
}

# Erlang's name server, one for each cluster: whoever has its port has the other ports too.
start_epmd() {
    export ERL_EPMD_ADDRESS=127.0.0.1
    if [ "$base_port" != auto ]; then
        export ERL_EPMD_PORT=$base_port
        pid_of epmd >/dev/null || claim_ports ||
            die "port $base_port or one of the 39 after it is in use: name another with --base-port"
        return
    fi
    local attempt
    for ((attempt = 0; attempt < 50; attempt++)); do
        # Below the ports that the kernel gives to outgoing connections, in blocks that do not
        # overlap.
        base_port=$((10000 + SRANDOM % 500 * 40))
        export ERL_EPMD_PORT=$base_port
        ! claim_ports || return 0
    done
    die "no free ports found"
}

claim_ports() {
    local port pid
    for ((port = base_port; port < base_port + 40; port++)); do
        port_is_free $port || return 1
    done
    spawn_epmd
    while pid=$(pid_of epmd); do
        ! listens "$pid" "$base_port" || return 0
        sleep 0.01
    done
    return 1
}

spawn_epmd() { spawn epmd $epmd -address 127.0.0.1 -port "$base_port"; }

# Starts a node that is not running.
launch_node() {
    local node=$1 home=$dir/node$1 split=ignore peers compiler i
    [ "$nodes" -lt 3 ] || split=pause_minority
    ! pid_of "node$node" >/dev/null || return 0
    port_is_free $((base_port + node)) || die "port $((base_port + node)) of node $node is in use"
    mkdir -p "$home"
    # Read at a node's first start only. The first node founds the cluster; were others named, it
    # would seek them.
    peers=$(for i in $(seq $((node == 1 ? 1 : nodes))); do printf "'%s'," "$(node_name "$i")"; done)
    cat >"$home/advanced.config" <<CONFIG
[{rabbit, [{tcp_listeners, [{"127.0.0.1", $((base_port + node))}]},
           {cluster_nodes, {[${peers%,}], disc}},
           {cluster_partition_handling, $split},
           {log, [{console, [{enabled, false}]}]}]},
 {kernel, [{inet_dist_use_interface, {127,0,0,1}}]}].
CONFIG
    compiler=$(echo /usr/lib/erlang/lib/compiler-*/ebin)
    # As under systemd the start script becomes the node, so its process id is the node's. One
    # scheduler each: three nodes share a small machine with the tests.
    spawn "node$node" env HOME="$dir" RUNNING_UNDER_SYSTEMD=true \
        RABBITMQ_SCRIPTS_DIR="$dir/home/sbin" RABBITMQ_PLUGINS_DIR="$dir/home/plugins" \
        RABBITMQ_CONF_ENV_FILE="$dir/environment" RABBITMQ_ENABLED_PLUGINS_FILE="$dir/plugins" \
        RABBITMQ_CONFIG_FILE="$home/none" RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config" \
        RABBITMQ_GENERATED_CONFIG_DIR="$home/config" \
        RABBITMQ_MNESIA_BASE="$home/db" RABBITMQ_LOG_BASE="$home/log" \
        RABBITMQ_NODENAME="$(node_name "$node")" RABBITMQ_NODE_PORT=$((base_port + node)) \
        RABBITMQ_DIST_PORT=$((base_port + 10 + node)) ERL_CRASH_DUMP="$home/crash.dump" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 +SDcpu 1:1 +SDio 2 -pa $compiler" \
        "$dir/home/sbin/rabbitmq-server"
}

# Evaluates Erlang on a node and prints what comes back; fails if the node does not answer.
ask() {
    local answer cookie
    cookie=$(<"$dir/.erlang.cookie")
    # A name of its own for each call: a node takes only one caller of a name at a time.
    answer=$(HOME=$dir ERL_EPMD_PORT=$base_port timeout 5 erl_call -h "ask$BASHPID" \
        -sname "$(node_name "$1")" -c "$cookie" -e 2>/dev/null <<<"$2") || return 1
    [[ $answer == '{ok, '* ]] || return 1
    answer=${answer#'{ok, '}
    echo "${answer%\}}"
}

serves() {
    local pid
    [ "$(ask "$1" 'rabbit:is_running().')" = true ] && pid=$(pid_of "node$1") &&
        listens "$pid" $((base_port + $1))
}

await_node() {
    local deadline=$((SECONDS + patience)) trouble=''
    until serves "$1"; do
        ! gone "node$1" || trouble="ended while it started"
        [ $SECONDS -lt $deadline ] || trouble="does not serve after $patience s"
        [ -z "$trouble" ] || {
            tail -n 20 "$dir/node$1/output" "$dir/node$1"/log/*.log >&2 || true
            die "node $1 $trouble; its log is in $dir/node$1"
        }
        sleep 0.1
    done
}

# All at once: after a full stop a node waits for the one that went last.
start_nodes() {
    local node
    export ERL_EPMD_PORT=$base_port ERL_EPMD_ADDRESS=127.0.0.1
    for node in "$@"; do launch_node "$node"; done
    for node in "$@"; do await_node "$node"; done
}

members() {
    ask "$1" 'case erlang:function_exported(rabbit_nodes, list_running, 0) of
        true -> rabbit_nodes:list_running(); false -> rabbit_nodes:all_running() end.'
}

alarms() { ask "$1" 'rabbit_alarm:get_alarms().'; }

sees_all_members() { [ "$(members "$1" | grep -o @localhost | wc -l)" = "$nodes" ]; }

await_membership() {
    local node
    for node in $(seq "$nodes"); do
        await sees_all_members "$node" ||
            die "node $node sees $(members "$node"), not $nodes members; its log is in $dir/node$node"
    done
}

first_running() {
    local node
    for node in $(seq "$nodes"); do
        if [ "$(ask "$node" 'rabbit:is_running().')" = true ]; then
            echo "$node"
            return
        fi
    done
    return 1
}

kill_node() {
    signal_to KILL "node$1"
    await gone "node$1" || die "node $1 does not end"
}

pause_node() {
    signal_to STOP "node$1"
    await is_paused "$1" || die "node $1 does not freeze, or does not run"
}

resume_node() { signal_to CONT "node$1"; }

is_paused() {
    local pid
    pid=$(pid_of "node$1") && [ "$(state_of "$pid")" = paused ]
}

# A memory alarm on one node blocks publishers on all.
alarm() {
    local node limit
    node=$(first_running) || die "no node is running"
    case $1 in
    on) limit='{absolute, 1}' ;;
    off) limit=0.4 ;;
    *) die "alarm is $1, must be on or off" ;;
    esac
    ask "$node" "vm_memory_monitor:set_vm_memory_high_watermark($limit)." >/dev/null
    await "alarm_is_$1" "$node" || die "the alarm did not go $1"
}

alarm_is_on() { [ "$(alarms "$1")" != '[]' ]; }
alarm_is_off() { [ "$(alarms "$1")" = '[]' ]; }

settle() {
    local node
    for node in $(seq "$nodes"); do
        gone "node$node" || ask "$node" '[ok = dets:sync(T) || T <- dets:all()].' >/dev/null ||
            die "node $node does not save"
    done
}

tool() {
    local tool=$1 node
    shift
    if [[ ${1:-} =~ ^[1-9]$ ]]; then
        node=$1
        shift
    else
        node=$(first_running) || die "no node is running"
    fi
    HOME=$dir ERL_EPMD_PORT=$base_port RABBITMQ_CONF_ENV_FILE=$dir/environment \
        RABBITMQ_CTL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \
        exec "$rabbitmq/bin/$tool" -n "$(node_name "$node")" "$@"
}
