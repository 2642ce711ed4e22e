// The parts of the supervision bench that must be small and the same for everybody: the module that is kept, the bare loop that is
// the floor, and the watcher that sees listening sockets come and go.
//
//   tool module                            listens on 127.0.0.1:$PORT, says so once, ends with 0 on SIGTERM
//   tool floor BASE COUNT DIR              keeps COUNT modules: fork, exec, waitpid, again; SIGHUP applies DIR/change
//   tool watch start BASE COUNT MS -- CMD  runs CMD; microseconds until all COUNT ports listen
//   tool watch stop BASE COUNT MS -- CMD   runs CMD; microseconds until none of them listens
//   tool watch change PORT COUNT MS -- CMD runs CMD; microseconds until PORT listens with another socket than before
//   tool watch gap PORT PORT2 MS -- CMD    runs CMD; microseconds from PORT listening to PORT2 listening
//   tool watch kill PORT PID MS            SIGKILL to PID; microseconds until PORT listens with another socket than before
//
// A watch prints `MICROSECONDS PID`, where PID is the command's, and leaves the command running. It asks the kernel for listening
// sockets (sock_diag(7)), which touches no module, and sleeps 0.1 ms between two questions; with the question itself that is
// about 0.2 ms between two looks.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char self[4096];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// The module.

static void end(int signal) {
    (void)signal;
    _exit(0);
}

static int module(void) {
    signal(SIGTERM, end);
    int port = atoi(getenv("PORT") ? getenv("PORT") : "0");
    if (getenv("DELAY_MS")) usleep(1000 * atoi(getenv("DELAY_MS")));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 16)) fail("listen");
    dprintf(1, "listens on %d\n", port);
    // s6 and others take a newline on a descriptor of their choice for "ready".
    if (getenv("NOTIFY_FD")) {
        int notify = atoi(getenv("NOTIFY_FD"));
        if (write(notify, "\n", 1) != 1) fail("notify");
        close(notify);
    }
    for (;;) {
        int client = accept(fd, 0, 0);
        if (client >= 0) close(client);
    }
    return 0;
}

// The floor.

enum { MOST = 4096 };
static volatile sig_atomic_t ending, changing;

static void on_signal(int number) {
    if (number == SIGTERM) ending = 1;
    if (number == SIGHUP) changing = 1;
}

static pid_t begin(int port, const char *level) {
    pid_t pid = vfork();
    if (pid) return pid;
    char port_text[32], level_text[64];
    snprintf(port_text, sizeof port_text, "PORT=%d", port);
    snprintf(level_text, sizeof level_text, "LEVEL=%s", level);
    char *arguments[] = {self, "module", 0}, *environment[] = {port_text, level_text, 0};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    execve(self, arguments, environment);
    _exit(127);
}

static int keep(int base, int count, const char *dir) {
    static pid_t pids[MOST];
    static char levels[MOST][16];
    if (count > MOST) return 1;
    sigset_t held, open;
    sigemptyset(&held);
    sigaddset(&held, SIGTERM), sigaddset(&held, SIGHUP), sigaddset(&held, SIGCHLD);
    sigprocmask(SIG_BLOCK, &held, &open);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, 0), sigaction(SIGHUP, &action, 0), sigaction(SIGCHLD, &action, 0);
    for (int i = 0; i < count; i++) {
        strcpy(levels[i], "a");
        pids[i] = begin(base + i, levels[i]);
    }
    while (!ending) {
        sigsuspend(&open);
        if (changing) {
            changing = 0;
            char path[4096], level[16];
            int index = -1;
            snprintf(path, sizeof path, "%s/change", dir);
            FILE *file = fopen(path, "r");
            if (file && fscanf(file, "%d %15s", &index, level) == 2 && index >= 0 && index < count) {
                strcpy(levels[index], level);
                kill(pids[index], SIGTERM);
            }
            if (file) fclose(file);
        }
        pid_t gone;
        while (!ending && (gone = waitpid(-1, 0, WNOHANG)) > 0)
            for (int i = 0; i < count; i++)
                if (pids[i] == gone) pids[i] = begin(base + i, levels[i]);
    }
    for (int i = 0; i < count; i++) kill(pids[i], SIGTERM);
    for (int i = 0; i < count; i++) waitpid(pids[i], 0, 0);
    return 0;
}

// The watcher.

static unsigned inodes[65536];
static int netlink_fd;

static void look(void) {
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 body;
    } question = {
        .head = {.nlmsg_len = sizeof question, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1 << TCP_LISTEN},
    };
    static char answer[1 << 16];
    memset(inodes, 0, sizeof inodes);
    if (send(netlink_fd, &question, sizeof question, 0) < 0) fail("sock_diag");
    for (;;) {
        ssize_t length = recv(netlink_fd, answer, sizeof answer, 0);
        if (length < 0 && errno == EINTR) continue;
        if (length < 0) fail("sock_diag");
        for (struct nlmsghdr *head = (void *)answer; NLMSG_OK(head, length); head = NLMSG_NEXT(head, length)) {
            if (head->nlmsg_type == NLMSG_DONE) return;
            if (head->nlmsg_type == NLMSG_ERROR) fail("sock_diag");
            struct inet_diag_msg *one = NLMSG_DATA(head);
            inodes[ntohs(one->id.idiag_sport)] = one->idiag_inode;
        }
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int watch(char **words) {
    const char *what = words[0];
    int first = atoi(words[1]), second = atoi(words[2]);
    double limit = atof(words[3]) * 1e3, gap = 0;
    char **command = words[4] ? words + 5 : 0;
    netlink_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (netlink_fd < 0) fail("sock_diag");
    prctl(PR_SET_TIMERSLACK, 1);
    look();
    unsigned before = inodes[first];
    pid_t pid = 0;
    double begun = now();
    if (command) {
        pid = fork();
        if (pid == 0) {
            setsid();
            // What it and its modules write goes where the bench says; the answer is ours alone.
            int log = open(getenv("LOG") ? getenv("LOG") : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0600);
            dup2(log, 1), dup2(log, 2), close(log);
            execvp(command[0], command);
            fail(command[0]);
        }
        // So that it gets its turn among a hundred starting modules; the command keeps the usual priority.
        setpriority(PRIO_PROCESS, 0, -10);
    } else {
        setpriority(PRIO_PROCESS, 0, -10);
        begun = now();
        kill(second, SIGKILL);
    }
    for (;;) {
        look();
        double at = now();
        int listening = 0;
        if (!strcmp(what, "start") || !strcmp(what, "stop"))
            for (int i = 0; i < second; i++) listening += inodes[first + i] != 0;
        if (!gap && inodes[first]) gap = at;
        int done = !strcmp(what, "start")  ? listening == second
                   : !strcmp(what, "stop") ? listening == 0
                   : !strcmp(what, "gap")  ? inodes[second] != 0
                                           : inodes[first] && inodes[first] != before;
        if (done) {
            printf("%.0f %d\n", at - (strcmp(what, "gap") ? begun : gap), pid);
            return 0;
        }
        if (at - begun > limit) {
            fprintf(stderr, "waited too long: %d listen\n", listening);
            printf("-1 %d\n", pid);
            return 2;
        }
        nanosleep(&(struct timespec){.tv_nsec = 100000}, 0);
    }
}

int main(int count, char **words) {
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) fail("/proc/self/exe");
    if (count >= 2 && !strcmp(words[1], "module")) return module();
    if (count == 5 && !strcmp(words[1], "floor")) return keep(atoi(words[2]), atoi(words[3]), words[4]);
    if (count >= 6 && !strcmp(words[1], "watch")) return watch(words + 2);
    fprintf(stderr, "see the head of tool.c\n");
    return 64;
}
