"""The system calls a sandboxed program may use, with their numbers on x86_64 and aarch64.

An allow-list: any other call is refused. A few more are decided by their arguments (`CLONE`, `PRCTL`,
`SOCKET`, `MMAP` and others). `CLONE3` returns "not implemented", because a filter
cannot read its argument and the C library then falls back to `clone`. Deliberately absent: sockets other
than UNIX streams, namespaces, mounts, keys, BPF, io_uring, ptrace, memfd, SysV shared memory, SysV and POSIX
message queues, userfaultfd, splice, perf events, kernel modules and changes of identity.
"""

# (x86_64, aarch64). -1: a call that aarch64 does not have because a newer one replaced it.
CLONE = (56, 220)
CLONE3 = (435, 435)
PRCTL = (157, 167)
SOCKET, SOCKETPAIR, SETSOCKOPT = (41, 198), (53, 199), (54, 208)
FCNTL, MMAP = (72, 25), (9, 222)
DECIDED_BY_ARGUMENTS = (CLONE, PRCTL, SOCKET, SOCKETPAIR, SETSOCKOPT, FCNTL, MMAP)
# Needed by the fork server to set up and end a run, never by a program: mount, unshare, setns, setresuid,
# setresgid, setgroups, capset, landlock_restrict_self, pidfd_send_signal.
SET_UP = (
    *((165, 40), (272, 97), (308, 268), (117, 147), (119, 149), (116, 159), (126, 91), (446, 446)),
    (424, 424),
)
# Where no namespace separates a run from other processes (see `_questions`): clone, fork, vfork are counted,
# and kill, tkill, tgkill, rt_sigqueueinfo reach the run's own. What takes a process id as its first argument,
# prlimit64 and sched_setaffinity, is for the caller itself. What changes files by their owner's right alone,
# which Landlock does not cover: chmod, fchmod, fchmodat, utime, utimes, futimesat, utimensat.
FORKS = (CLONE, (57, -1), (58, -1))
SIGNALS = ((62, 129), (200, 130), (234, 131), (129, 138))
ON_ONESELF = ((302, 261), (203, 122))
# socket, connect, bind, listen, accept, accept4
WITH_ADDRESSES = (SOCKET, (42, 203), (49, 200), (50, 201), (43, 202), (288, 242))
SETPRIORITY, IOCTL = (141, 140), (16, 29)
BY_OWNERS = ((90, -1), (91, 52), (268, 53), (132, -1), (235, -1), (261, -1), (280, 88))
COLUMN = {"x86_64": 0, "aarch64": 1}

ALLOWED = """
accept4:288:242 accept:43:202 access:21:-1 alarm:37:-1 arch_prctl:158:-1 bind:49:200 brk:12:214
capget:125:90 chdir:80:49 chmod:90:-1 clock_getres:229:114 clock_gettime:228:113 clock_nanosleep:230:115
close:3:57 close_range:436:436 connect:42:203 copy_file_range:326:285 creat:85:-1 dup2:33:-1 dup3:292:24
dup:32:23 epoll_create1:291:20 epoll_create:213:-1 epoll_ctl:233:21 epoll_pwait2:441:441
epoll_pwait:281:22 epoll_wait:232:-1 eventfd2:290:19 eventfd:284:-1 execve:59:221 execveat:322:281
exit:60:93 exit_group:231:94 faccessat2:439:439 faccessat:269:48 fadvise64:221:223 fallocate:285:47
fchdir:81:50 fchmod:91:52 fchmodat:268:53 fdatasync:75:83 fgetxattr:193:10 flistxattr:196:13 flock:73:32
fork:57:-1 fstat:5:80 fstatfs:138:44 fsync:74:82 ftruncate:77:46 futex:202:98 futex_waitv:449:449
futimesat:261:-1 get_robust_list:274:100 getcpu:309:168 getcwd:79:17 getdents64:217:61 getdents:78:-1
getegid:108:177 geteuid:107:175 getgid:104:176 getgroups:115:158 getitimer:36:102 getpeername:52:205
getpgid:121:155 getpgrp:111:-1 getpid:39:172 getppid:110:173 getpriority:140:141 getrandom:318:278
getresgid:120:150 getresuid:118:148 getrlimit:97:163 getrusage:98:165 getsid:124:156 getsockname:51:204
getsockopt:55:209 gettid:186:178 gettimeofday:96:169 getuid:102:174 getxattr:191:8 ioctl:16:29
kill:62:129 lgetxattr:192:9 link:86:-1 linkat:265:37 listen:50:201 listxattr:194:11 llistxattr:195:12
lseek:8:62 lstat:6:-1 madvise:28:233 membarrier:324:283 mincore:27:232 mkdir:83:-1 mkdirat:258:34
mprotect:10:226 mremap:25:216 msync:26:227 munmap:11:215 nanosleep:35:101 newfstatat:262:79 open:2:-1
openat2:437:437 openat:257:56 pause:34:-1 pidfd_open:434:434 pipe2:293:59 pipe:22:-1 poll:7:-1
ppoll:271:73 pread64:17:67 preadv2:327:286 preadv:295:69 prlimit64:302:261 pselect6:270:72
pwrite64:18:68 pwritev2:328:287 pwritev:296:70 read:0:63 readlink:89:-1 readlinkat:267:78 readv:19:65
recvfrom:45:207 recvmmsg:299:243 recvmsg:47:212 rename:82:-1 renameat2:316:276 renameat:264:38
restart_syscall:219:128 rmdir:84:-1 rseq:334:293 rt_sigaction:13:134 rt_sigpending:127:136
rt_sigprocmask:14:135 rt_sigqueueinfo:129:138 rt_sigreturn:15:139 rt_sigsuspend:130:133
rt_sigtimedwait:128:137 sched_get_priority_max:146:125 sched_get_priority_min:147:126
sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120
sched_rr_get_interval:148:127 sched_setaffinity:203:122 sched_yield:24:124 select:23:-1 sendfile:40:71
sendmmsg:307:269 sendmsg:46:211 sendto:44:206 set_robust_list:273:99 set_tid_address:218:96
setitimer:38:103 setpgid:109:154 setpriority:141:140 setrlimit:160:164 setsid:112:157 shutdown:48:210
sigaltstack:131:132 signalfd4:289:74 signalfd:282:-1 stat:4:-1 statfs:137:43 statx:332:291 symlink:88:-1
symlinkat:266:36 sysinfo:99:179 tgkill:234:131 time:201:-1 timer_create:222:107 timer_delete:226:111
timer_getoverrun:225:109 timer_gettime:224:108 timer_settime:223:110 timerfd_create:283:85
timerfd_gettime:287:87 timerfd_settime:286:86 times:100:153 tkill:200:130 truncate:76:45 umask:95:166
uname:63:160 unlink:87:-1 unlinkat:263:35 utime:132:-1 utimensat:280:88 utimes:235:-1 vfork:58:-1
wait4:61:260 waitid:247:95 write:1:64 writev:20:66
"""


def allowed_numbers(machine: str) -> list[int]:
    """The allowed numbers on `machine` ("x86_64" or "aarch64"), ascending.

    >>> allowed_numbers("x86_64")[:3], allowed_numbers("aarch64")[0]
    ([0, 1, 2], 8)
    """
    column = 1 + COLUMN[machine]
    numbers = (int(entry.split(":")[column]) for entry in ALLOWED.split())
    return sorted(number for number in numbers if number >= 0)
