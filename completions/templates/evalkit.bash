# Completion of evalkit for bash. Written by `make completions`.
# To use it, put `eval "$(evalkit completion bash)"` into ~/.bashrc, or keep this file as
# ~/.local/share/bash-completion/completions/evalkit.

# The program itself knows about runs, instances, and what is installed. It is told what is typed, and what else is given.
_evalkit_ask() {
    _EVALKIT_COMPLETE=$1 "${words[0]/#\~\//$HOME/}" "${words[@]:1:${#words[@]}-2}" "${@:2}" 2>/dev/null </dev/null
}

# Bash has split the line also at = and :, which are parts of our words.
_evalkit_read_line() {
    local i word glue=
    words=()
    for (( i = 0; i <= COMP_CWORD; i++ )); do
        word=${COMP_WORDS[i]}
        if [[ $glue || ( $i -gt 1 && $word == [=:]* ) ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == *[=:] && $i -gt 1 ]] && glue=yes || glue=
    done
    current=${words[${#words[@]}-1]}
    before=${words[${#words[@]}-2]}
    # What readline replaces begins after the last place where it split.
    kept=${current%"${COMP_WORDS[COMP_CWORD]}"}
    [[ ${COMP_WORDS[COMP_CWORD]} == [=:] ]] && kept=$current
}

# Offer those of the given words that begin with what is typed, after what stays in front of them.
_evalkit_offer() {
    local front=$1 word quoted
    shift
    for word; do
        word=$front$word
        printf -v quoted %q "$word"
        quoted=${quoted//\\,/,}
        if [[ $current == [\'\"]* ]]; then
            [[ $word == "${current:1}"* ]] && COMPREPLY+=("$word")
        elif [[ $word == "$current"* || $quoted == "$current"* ]]; then
            COMPREPLY+=("${quoted#"$kept"}")
        fi
    done
}

# Offer what a value may be. In front of it stands --option= where it is written like that.
_evalkit_offer_value() {
    local takes=$1 front=$2 value=${current#"$2"} found=()
    case $takes in
        nothing) ;;
        files | directories)
            compopt -o filenames 2>/dev/null
            [[ $takes == files ]] && takes=-f || takes=-d
            mapfile -t found < <(compgen "$takes" -- "$value")
            COMPREPLY+=("${found[@]}")
            ;;
        @@several@@)
            [[ $value == *,* ]] && front+=${value%,*},
            mapfile -t found < <(_evalkit_words "$takes")
            _evalkit_offer "$front" "${found[@]}"
            ;;
        *)
            mapfile -t found < <(_evalkit_words "$takes")
            # Only the agent knows its options, so it is asked when they are meant.
            [[ $takes == assignments && $value == agent.o* ]] &&
                mapfile -t -O ${#found[@]} found < <(_evalkit_ask options)
            [[ $takes == assignments && $value == *=* ]] && mapfile -t found < <(_evalkit_ask values "${value#[\'\"]}")
            _evalkit_offer "$front" "${found[@]}"
            [[ $takes == runs && ! ${COMPREPLY[*]} ]] && _evalkit_offer_value directories "$front"
            ;;
    esac
    [[ ${COMPREPLY[*]} == *= ]] && compopt -o nospace 2>/dev/null
}

_evalkit_words() {
    case $1 in
        @@questions@@) _evalkit_ask "$1" ;;
@@lists@@
        *) printf '%s\n' $1 ;;
    esac
}

# What an option of a command takes; nothing at all for a switch.
_evalkit_takes() {
    takes=
    case "$1 $2" in
@@values@@
    esac
}

_evalkit() {
    local words current before kept word last= command= option= takes= options= arguments=() given=()
    COMPREPLY=()
    _evalkit_read_line
    for word in "${words[@]:1:${#words[@]}-2}"; do
        _evalkit_takes "$command" "$last"
        if [[ $word != -* && ! $takes ]]; then
            [[ $command ]] && given+=("$word") || command=$word
        fi
        last=$word
    done
    case $command in
        '')
            _evalkit_offer '' @@commands@@
            [[ $current == -* ]] && _evalkit_offer '' -h --help --version
            return
            ;;
@@options@@
        *) return ;;
    esac
    option=$before
    [[ $current == --*=* ]] && option=${current%%=*}
    _evalkit_takes "$command" "$option"
    if [[ $takes && $option == "$before" ]]; then
        _evalkit_offer_value "$takes" ''
    elif [[ $takes ]]; then
        _evalkit_offer_value "$takes" "$option="
    else
        # Where a command takes several, they are all of one kind.
        takes=${arguments[${#given[@]}]:-${arguments[0]}}
        [[ $current != -* && $takes ]] && _evalkit_offer_value "$takes" ''
        [[ $current == -* || ! $current && ( ! $takes || $takes == directories ) ]] && _evalkit_offer '' $options
    fi
}

complete -o nosort -F _evalkit evalkit 2>/dev/null || complete -F _evalkit evalkit
