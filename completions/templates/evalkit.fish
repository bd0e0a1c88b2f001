# Completion of evalkit for fish. Written by `make completions`.
# To use it, put `evalkit completion fish | source` into ~/.config/fish/config.fish, or keep this file in
# ~/.config/fish/completions.

# The program itself knows about runs, instances, and what is installed.
function __evalkit_ask
    set -l line (commandline -opc)
    env _EVALKIT_COMPLETE=$argv[1] $line $argv[2..] 2>/dev/null </dev/null
end

# Words of which a value may have several, with commas between them.
function __evalkit_several
    set -l front (string match -r -- '^(?:.*,)?' (string replace -r -- '^--[^=]*=' '' (commandline -ct)))
    printf "$front%s\n" $argv
end

# The command and its arguments, without options and what these take.
function __evalkit_words
    set -l line (commandline -opc)
    set -l takes_next no
    for word in $line[2..]
        if test $takes_next = yes
            set takes_next no
        else if not string match -q -- '-*' $word
            echo -- $word
        else if not string match -q -- '*=*' $word; and not contains -- $word @@switches@@
            set takes_next yes
        end
    end
end

function __evalkit_command
    set -l words (__evalkit_words)
    test "$words[1]" = "$argv[1]"
end

# What the key that is typed can be, once it is typed.
function __evalkit_values
    set -l typed (string replace -r -- '^--set=' '' (commandline -ct))
    string match -q -- '*=*' $typed; and __evalkit_ask values $typed
end

# Only the agent knows its options, so it is asked when they are meant.
function __evalkit_options
    string match -q -r -- '^(--set=)?agent\.o' (commandline -ct); and __evalkit_ask options
end

# Whether that many arguments stand behind the command.
function __evalkit_given
    test (count (__evalkit_words)) -eq (math $argv[1] + 1)
end

complete -c evalkit -f
@@completions@@
