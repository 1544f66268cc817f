# Sourced by the scripts beside it: what more than one of them needs.

# Installs a Debian package when a command is missing.
#   need chromium chromium
need() {
    local command=$1 package=$2
    if command -v "$command" >/dev/null; then
        return
    fi
    echo "installing $package for $command"
    # The lists are fetched once, whoever comes first.
    if [ -z "${CI_LISTS_FETCHED:-}" ]; then
        apt-get update -qq </dev/null
        export CI_LISTS_FETCHED=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" </dev/null >/dev/null
    command -v "$command" >/dev/null
}
