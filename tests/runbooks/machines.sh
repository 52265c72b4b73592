# Makes machines in namespaces of their own, with empty /etc/wazuh-server, /var/lib and /run, and runs steps on them. They share
# /backups and one network, which has nothing but themselves.
#
#   unshare --mount --net --pid --fork --kill-child sh machines.sh FOLDER PROGRAMS SOURCE MACHINE...
#
# FOLDER/steps has a script for each step, NUMBER.MACHINE; FOLDER/stubs what stands in for systemd and for users. What a step prints
# goes to stdout after a line `### NUMBER`. The first one that fails ends it. Everything in here ends with this shell.
set -eu
folder=$1 programs=$2 source=$3
shift 3
mount --make-rprivate /
ip link set lo up
for address in 10.0.0.10 10.0.0.11 10.0.0.12 10.0.0.99; do
    ip address add $address/32 dev lo
done
# As if it came from another machine: what the balancer sends to the node has the balancer's address.
ip route change local 10.0.0.11 dev lo table local src 10.0.0.10
mkdir -p "$folder/backups"
mount -t tmpfs none "$folder/backups"
for machine in "$@"; do
    root=$folder/machines/$machine
    mkdir -p "$root"
    mount -t tmpfs none "$root"
    for each in /*; do
        case $each in
        /etc | /var | /run | /backups | /proc) ;;
        *)
            if [ -L "$each" ]; then
                cp -a "$each" "$root/"
            elif [ -d "$each" ]; then
                mkdir "$root$each"
                mount --rbind "$each" "$root$each"
            fi
            ;;
        esac
    done
    cp -a /etc "$root/etc"
    rm -rf "$root/etc/wazuh-server"
    mkdir -p "$root/etc/wazuh-server/certs" "$root/var/lib/wazuh-comms" "$root/var/tmp" "$root/run/wazuh-server" \
        "$root/backups" "$root/proc" "$root/etc/haproxy"
    chmod 700 "$root/var/lib/wazuh-comms"
    mount -t proc none "$root/proc"
    mount --bind "$folder/backups" "$root/backups"
    echo '127.0.0.1 node-1.example.com node-2.example.com' >> "$root/etc/hosts"
done
for step in "$folder"/steps/*; do
    name=${step##*/}
    printf '\n### %s\n' "${name%%.*}" # also after output that doesn't end its line
    chroot "$folder/machines/${name#*.}" env -i HOME=/root PATH="$folder/stubs:$programs:/usr/sbin:/usr/bin:/sbin:/bin" \
        WAZUH_COMMS_SOURCE="$source" sh -eu "$step" < /dev/null 2>&1
done
