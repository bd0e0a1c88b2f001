# The inner side of a loopback port, as in loopback_port_inside.py, for images that have Perl and no Python.
use strict;
use warnings;
use Socket;
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);

my ($head, $block, $taken, $window) = (8, 65536, 0x80000000, 262144);
my (%sockets, %pending, %ends, %heard_all, %under_way, $received, $count);
($received, $count) = ("", 0);
$SIG{PIPE} = "IGNORE";

socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
bind($listener, sockaddr_in($ARGV[0], INADDR_LOOPBACK)) or die "bind: $!";
listen($listener, 256) or die "listen: $!";
say_frame(0, (sockaddr_in(getsockname($listener)))[0]);

while (1) {
    my ($readers, $writers) = ("", "");
    vec($readers, fileno($_), 1) = 1 for *STDIN, $listener;
    for my $number (keys %sockets) {
        vec($readers, fileno($sockets{$number}), 1) = 1 unless $heard_all{$number} || $under_way{$number} >= $window;
        vec($writers, fileno($sockets{$number}), 1) = 1 if length $pending{$number};
    }
    next if select($readers, $writers, undef, undef) < 0;
    if (vec($readers, fileno(*STDIN), 1)) { take_frames() or exit }
    if (vec($readers, fileno($listener), 1)) { accept_one() }
    for my $number (keys %sockets) {
        hear($number) if vec($readers, fileno($sockets{$number}), 1);
        flush_one($number) if $sockets{$number} && vec($writers, fileno($sockets{$number}), 1);
    }
}

sub accept_one {
    accept(my $socket, $listener) or return;
    my $flags = fcntl($socket, F_GETFL, 0);
    fcntl($socket, F_SETFL, $flags | O_NONBLOCK);
    $count++;
    $sockets{$count} = $socket;
    $pending{$count} = "";
    $under_way{$count} = 0;
}

sub take_frames {
    my $got = sysread(STDIN, $received, $block, length $received);
    while (length $received >= $head) {
        my ($number, $length) = unpack("NN", $received);
        last if length $received < $head + $length;
        my $payload = substr($received, $head, $length);
        substr($received, 0, $head + $length) = "";
        if ($number & $taken) {
            $under_way{$number & ~$taken} -= unpack("N", $payload) if $sockets{$number & ~$taken};
            next;
        }
        next unless $sockets{$number};
        $pending{$number} .= $payload;
        $ends{$number} = 1 unless $length;
        flush_one($number);
    }
    return $got;
}

sub hear {
    my ($number) = @_;
    my $got = sysread($sockets{$number}, my $content, $block);
    return if !defined $got && $!{EAGAIN};
    return drop($number) unless defined $got;
    $heard_all{$number} = 1 unless $got;
    $under_way{$number} += $got;
    say_frame($number, $content);
}

sub flush_one {
    my ($number) = @_;
    if (length $pending{$number}) {
        my $sent = syswrite($sockets{$number}, $pending{$number});
        return drop($number) unless defined $sent || $!{EAGAIN};
        substr($pending{$number}, 0, $sent || 0) = "";
        say_frame($number | $taken, pack("N", $sent)) if $sent;
    }
    drop($number) if $ends{$number} && !length $pending{$number};
}

sub drop {
    my ($number) = @_;
    close delete $sockets{$number};
    delete $pending{$number};
    delete $ends{$number};
    delete $under_way{$number};
    say_frame($number | $taken, "");
    say_frame($number, "") unless delete $heard_all{$number};
}

sub say_frame {
    my ($number, $payload) = @_;
    my $rest = pack("NN", $number, length $payload) . $payload;
    while (length $rest) {
        my $sent = syswrite(STDOUT, $rest);
        exit unless defined $sent;
        substr($rest, 0, $sent) = "";
    }
}
