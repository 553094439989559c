#!/bin/bash
# A one-node SLURM for tests: nothing is installed, and nothing of it is on PATH unless you put it there.
#   slurm.sh fetch ROOT                   Debian's packages, unpacked into ROOT; needs apt-get, and no root
#   SLURM_ROOT=ROOT slurm.sh start DIR    munged, slurmctld and slurmd of this user, in about a second
#   SLURM_ROOT=ROOT slurm.sh stop DIR
#   SLURM_ROOT=ROOT slurm.sh node DIR     slurmd alone, after it was killed
# Callers need the PATH and LD_LIBRARY_PATH below, and SLURM_CONF=DIR/slurm.conf; one_node.py has them. The partitions
# are low, whose tasks are requeued when high needs their cores, and high.
set -euo pipefail
if [ "$1" = fetch ]; then
  mkdir -p "$2/debs" && cd "$2/debs"
  apt-get download slurmctld slurmd slurm-client munge libmunge2 libhwloc15 liblua5.1-0 slurm-wlm-basic-plugins
  for package in *.deb; do dpkg -x "$package" ..; done
  cd ../usr/sbin && for name in slurmctld slurmd slurmstepd; do [ -e $name ] || ln -s $name-wlm $name; done
  exit
fi
R=${SLURM_ROOT:-}; L=$R/usr/lib/$(uname -m)-linux-gnu
export PATH=$R/usr/sbin:$R/usr/bin:$PATH LD_LIBRARY_PATH=$L:$L/slurm-wlm
D=$(realpath -m "$2"); export SLURM_CONF="$D/slurm.conf"
node() { slurmd "$@" -d "$R/usr/sbin/slurmstepd"; }
stop() { for d in slurmd slurmctld munged; do [ -s "$D/$d.pid" ] && kill "$(cat "$D/$d.pid")" 2>/dev/null || true; done; }
[ "$1" = stop ] && { stop; exit; }
[ "$1" = node ] && { node; exit; }
mkdir -p "$D"/{state,spool}; chmod 755 "$D"; H=$(hostname -s)
# A second cluster on the same machine has other ports.
PORT=${SLURM_PORT:-26817}
head -c 128 /dev/urandom > "$D/munge.key"; chmod 600 "$D/munge.key"
cat > "$D/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$H(127.0.0.1)
SlurmUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$D/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd.pid
SlurmctldLogFile=$D/slurmctld.log
SlurmdLogFile=$D/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
PluginDir=$L/slurm-wlm
ReturnToService=2
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,defer_batch
KillWait=10
MinJobAge=3600
NodeName=$H NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=$H Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=$H MaxTime=INFINITE State=UP PriorityTier=10
CONF
munged --force --socket="$D/munge.sock" --key-file="$D/munge.key" --pid-file="$D/munged.pid" --log-file="$D/munged.log" --seed-file="$D/munge.seed"
slurmctld -c; node -c
for _ in $(seq 100); do [ "$(sinfo -h -o %t 2>/dev/null | sort -u)" = idle ] && exit; sleep 0.1; done
stop; cat "$D"/slurm*.log >&2; exit 1
