# Sourced by the build scripts: what they share about the cache, packages and messages.
cache=${KMCTL_CACHE:-$HOME/.cache/kmctl}
export DEBIAN_FRONTEND=noninteractive

say() { echo "$*" >&2; }
fail() { echo "error: $*" >&2; exit 1; }

# The first 16 digits of the sha256 over the named files' and folders' contents and over standard input, if that is
# a pipe. Names of files count too, places do not: a clone elsewhere finds the same cache.
content_key() {
  { for path in "$@"; do (cd "$path" 2>/dev/null && find . -type f -print0 | sort -z | xargs -0 sha256sum) || cat "$path"; done
    [ ! -p /dev/stdin ] || cat; } | sha256sum | cut -c1-16
}

# Installs Debian packages that are missing, waiting for another apt to finish.
need_packages() {
  local missing=() name
  for name in "$@"; do dpkg-query -W -f '${db:Status-Abbrev}\n' "$name" 2>/dev/null | grep -q '^ii' || missing+=("$name"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing packages: ${missing[*]}"
  apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    { apt-get -o DPkg::Lock::Timeout=600 update -q >/dev/null
      apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends "${missing[@]}" >/dev/null; }
}

# publish PART FINAL: a finished folder appears under its name in one step, so that a killed build leaves nothing
# that looks finished; whoever was faster wins.
publish() {
  touch "$1/complete"
  mv -T "$1" "$2" 2>/dev/null || [ -f "$2/complete" ] || fail "could not move $1 to $2"
}

# own_cargo_cache ROOT: makes the common Cargo folder safe for this checkout. Cargo names a workspace's packages
# independently of where the workspace lies and judges sources by their time, so it would take another checkout's
# compiled code for this one's wherever the files here are older. Whoever built last is written down, and the next
# checkout makes its sources newer than anything that is compiled.
own_cargo_cache() {
  mkdir -p "$CARGO_TARGET_DIR"
  [ "$(cat "$CARGO_TARGET_DIR/built-from" 2>/dev/null)" != "$1" ] || return 0
  find "$1" -name target -prune -o -name .git -prune -o -type f \( -name '*.rs' -o -name 'Cargo.*' -o -path '*/templates/*' -o -name '*.snap' \) \
    -exec touch {} +
  echo "$1" >"$CARGO_TARGET_DIR/built-from"
}

# The compilers that this machine has to bring along: Debian's packages have older ones.
need_go() {
  local has
  has=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || fail "there is no go: install Go 1.26 or newer (https://go.dev/dl), and have it in PATH"
  [ "$(printf 'go1.26\n%s\n' "$has" | sort -V | head -1)" = go1.26 ] || fail "go is $has: Kubernetes needs Go 1.26 or newer (https://go.dev/dl)"
}
need_rust() {
  command -v cargo >/dev/null || fail "there is no cargo: install Rust 1.89 or newer, for example with rustup (https://rustup.rs)"
}
