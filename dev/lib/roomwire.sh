# shellcheck shell=bash
# Roomwire instances beside the brokers, and HAProxy before them, for people to look at.

# shellcheck disable=SC2154 # $dir, $root, $base_port, $instances: set by who reads this.

haproxy_config=$root/docker/haproxy.cfg

instance_port() { echo $((base_port + 20 + $1)); }

# The newest build, of whichever profile.
server_binary() {
    local newest='' binary
    for binary in "$root"/target/{release,debug}/roomwire; do
        if [ -x "$binary" ] && [[ -z $newest || $binary -nt $newest ]]; then newest=$binary; fi
    done
    [ -n "$newest" ] && echo "$newest"
}

start_instances() {
    local binary i
    [ "$instances" = 0 ] || {
        binary=$(server_binary) || die "there is no server to start: cargo build"
        for i in $(seq "$instances"); do launch_instance "$i" "$binary"; done
        for i in $(seq "$instances"); do await_ready "roomwire$i" "$(instance_port "$i")"; done
    }
    [ "$haproxy" = false ] || start_haproxy
}

launch_instance() {
    local name=roomwire$1
    ! pid_of "$name" >/dev/null || return 0
    spawn "$name" "$2" serve --dev --listen "127.0.0.1:$(instance_port "$1")" --data data \
        --amqp-url "$(urls | paste -sd,)"
}

start_haproxy() {
    local i
    [ "$instances" -gt 0 ] || die "HAProxy has nothing to stand before: name --instances too"
    command -v haproxy >/dev/null || {
        say "installing haproxy"
        install_quietly haproxy
    }
    ! pid_of haproxy >/dev/null || return 0
    mkdir -p "$dir/haproxy"
    {
        # The number of its connections follows from the descriptors that this machine allows.
        sed '/^ *server roomwire/d; /^ *maxconn/d' "$haproxy_config"
        for i in $(seq "$instances"); do
            echo "    server roomwire$i 127.0.0.1:$(instance_port "$i")"
        done
    } >"$dir/haproxy/haproxy.cfg"
    spawn haproxy env LISTEN="127.0.0.1:$((base_port + 30))" \
        FIGURES="127.0.0.1:$((base_port + 31))" haproxy -f haproxy.cfg
    await_ready haproxy $((base_port + 30))
}

await_ready() {
    local name=$1 port=$2
    await ended_or_ready "$name" "$port" || true
    if is_ready "$port"; then
        say "$name ready at http://127.0.0.1:$port"
        return
    fi
    tail -n 20 "$dir/$name/output" >&2
    die "$name is not ready; its log is $dir/$name/output"
}

ended_or_ready() { gone "$1" || is_ready "$2"; }

is_ready() {
    local line=''
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
        printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
        read -r -t 5 line <&3
        exec 3>&-
    } 2>/dev/null
    [[ $line == *' 200 '* ]]
}
