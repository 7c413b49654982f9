#!/usr/bin/env bash
# dev/nginx.sh DIR LISTEN SERVER…: runs nginx in the foreground with the configuration of this
# repository's nginx/ folder; only the listen address and the servers are filled in. DIR gets the
# configuration, the pid and the logs. Becomes nginx, so the caller's child is nginx itself.
#
#   dev/nginx.sh /tmp/nginx 127.0.0.1:8080 127.0.0.1:3001 127.0.0.1:3002
#
# NGINX_TEST=1 only tests the configuration.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../nginx" && pwd)

[[ $# -ge 3 ]] || { echo 'usage: dev/nginx.sh DIR LISTEN SERVER…' >&2; exit 2; }
dir=$1 listen=$2
shift 2

mkdir -p "$dir"
chmod 711 "$dir" # as root, the workers are another user
cp "$source_dir/nginx.conf" "$source_dir/tokencast.conf" "$dir/"
cat >"$dir/tokencast-listen.conf" <<CONF
listen $listen;
access_log access.log tokencast;
CONF
# The servers' parameters are those of the committed file.
parameters=$(sed -n 's/^server [^ ]* \(.*\);$/\1/p' "$source_dir/tokencast-servers.conf" | head -n 1)
for server in "$@"; do
  printf 'server %s %s;\n' "$server" "$parameters"
done >"$dir/tokencast-servers.conf"

command=(nginx -e stderr -p "$dir" -c "$dir/nginx.conf")
if [[ -n ${NGINX_TEST:-} ]]; then exec "${command[@]}" -t; fi
exec "${command[@]}" -g 'daemon off;'
