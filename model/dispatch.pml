/* One command for one device, from its acceptance to its end: the state machine of `fcm_dispatches` and its
 * environment. `make prove` checks it with SPIN; model/README.md says what that proves and what it does not prove.
 *
 * WHAT IS CHECKED. Every order of the steps below, exhaustively, within these bounds (the defaults; each run of
 * `make prove` prints its own):
 *
 *     COMMANDS   commands of one device
 *     SENDERS    sending processes that hold a claim at the same time: working, frozen or about to crash
 *     ATTEMPTS   claims of one command
 *     RESENDS    resends of one command by operators; each may be requested any number of times
 *     CLIENTS    requests with one request_id; each may be repeated any number of times; the second has another payload
 *     TOKENS     FCM registration tokens that the device reports
 *     TAKEOVERS, RESTORES, RETENTIONS   how often the device is enrolled again, the database is restored from a snapshot,
 *                and the row is removed by retention
 *     UNTIL, SECRETS, FOREIGN   1: also includes commands that are repeated until answered, that have a secret
 *                parameter, and those of record_fcm_dispatch
 *
 * WHAT IS LEFT OUT.
 *   - Durations. A lease, a wait or a time to live may end at any moment, but in the order that their lengths guarantee:
 *     a holder knows that its time is over before the database does, and FCM has dropped a message before
 *     `fcm_expires_at` passes.
 *   - Partial statements. A statement is one step, because PostgreSQL executes it completely or not at all; a crash is
 *     possible between any two steps. The text, signature and size of a message, and lists of commands, are not modelled.
 *   - A sender checks its lease and posts in one step. With FROZEN it may stop between the two for any time; then
 *     only D1 and the audit are checked, because an overlap of two messages (D6) cannot be excluded.
 *   - FCM accepts, rejects, asks to wait, does not respond whether or not it has the message, delivers a message twice,
 *     and drops one at any time until its ttl. It does not deliver after the ttl.
 *   - A device is one row. A deleted device is modelled as one without an FCM token, because claims treat both alike.
 *   - After a restore nothing is claimed until `after_restore` has run, and a request that was accepted after the
 *     snapshot is not repeated: docs/operations.md requires both.
 *   - Retention removes a row days after its last claim; no sender is frozen for so long.
 */

#ifndef COMMANDS
#define COMMANDS 1
#endif
#ifndef SENDERS
#define SENDERS 2
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 3
#endif
#ifndef RESENDS
#define RESENDS 2
#endif
#ifndef CLIENTS
#define CLIENTS 2
#endif
#ifndef TOKENS
#define TOKENS 2
#endif
#ifndef TAKEOVERS
#define TAKEOVERS 1
#endif
#ifndef RESTORES
#define RESTORES 0
#endif
#ifndef RETENTIONS
#define RETENTIONS 0
#endif
#ifndef UNTIL
#define UNTIL 1
#endif
#ifndef SECRETS
#define SECRETS 1
#endif
#ifndef FOREIGN
#define FOREIGN 0
#endif

/* If nothing waits for FCM to drop a message, messages are not counted; there is only one that the device may answer. */
#define MESSAGES (UNTIL || RETENTIONS)

#define JUMP 8          /* after_restore adds it to the fence; the code adds 1000000. More than ATTEMPTS + TAKEOVERS. */

/* The column `state`; NONE: there is no row. */
#define NONE      0
#define ACCEPTED  1
#define SENDING   2
#define SENT      3
#define FAILED    4
#define RETRY     5
#define UNKNOWN   6
#define EXPIRED   7
#define CANCELLED 8

/* The values of a timestamp column: not set, in the future, in the past. */
#define UNSET   0
#define COMING  1
#define PASSED  2

/* The column `secrets`: NULL, a value, '{}'. */
#define NEVER  0
#define KEPT   1
#define WIPED  2

/* What a sender knows: nothing claimed, claimed but not posted, or the result of its POST. */
#define IDLE    0
#define HOLDS   1
#define OK      2   /* 200 */
#define REFUSED 3   /* 400, 403, 404 */
#define GONE    4   /* 404 UNREGISTERED: the FCM token is cleared */
#define LATER   5   /* 429, no connection, or not posted at all: certainly not accepted */
#define SILENT  6   /* a lost response, 5xx: FCM may have it */

/* What FCM did with the message of the row's latest claim, which is not in any row; only for the properties. */
#define NOTHING   0
#define NOT_TAKEN 1
#define TAKEN     2
#define PERHAPS   3

typedef Row {
    byte state;
    byte fence;
    byte attempts;
    byte refused;       /* responses that mean: certainly not accepted */
    byte resends;       /* entries of `audit` */
    byte repeats;       /* entries of `audit` */
    byte keys;          /* of the resends, one bit each */
    byte truth;         /* not a column: see NOTHING */
    unsigned lease : 2;     /* lease_until */
    unsigned next : 2;      /* next_at */
    unsigned fcm : 2;       /* fcm_expires_at */
    unsigned secret : 2;
    bit over;           /* expires_at has passed */
    bit done;           /* completed_at is set */
    bit seen;           /* the device has been heard from after fcm_expires_at, a minute ago or more */
    bit delivery;       /* 1: until_answered */
    bit own;            /* created_by is set: not one of record_fcm_dispatch */
    bit heard;          /* fcm_status is FCM's response to the latest claim */
    bit payload;        /* which of two payload hashes */
    bit restored;       /* `audit` has a restore */
    bit former          /* not a column: accepted before the device was enrolled again */
}

typedef Slot {
    byte has;
    byte fence;
    byte command;
    byte token;
    byte turn;
    bit late;           /* by its own clock, the lease or the time to live is over */
    bit blank           /* the secret parameter was wiped when it claimed */
}

Row row[COMMANDS];
Slot slot[SENDERS];
byte token;             /* devices.fcm_token: 0 is NULL, else its number */
byte reported;          /* how many tokens the device has reported */

/* State that is not in any table. A turn is one permission to send: the acceptance, each resend by an operator, each
 * repeat of an until_answered command. */
byte turn[COMMANDS];
byte used[COMMANDS];        /* the turns in which FCM accepted or may have accepted a POST, one bit each */
byte decided[COMMANDS];     /* the resends that have had their turn, one bit each */
byte live[COMMANDS];        /* messages that FCM may still deliver */
bit answered[COMMANDS];     /* the device has answered, even if the database does not know it */
bit knows[COMMANDS];        /* the device has the request_id, from FCM or from pending_commands */
bit covered[COMMANDS];      /* fcm_expires_at is not before any message's end */
bit barred[COMMANDS];       /* accepted after the snapshot: its client no longer repeats it */
bit restoring;
byte c0;                    /* scratch, 0 between steps */
byte takeovers, restores, retentions;

#if RESTORES
Row snap[COMMANDS];
byte snap_token;
bit taken;
#endif

#ifdef WALK             /* A random search ends after this many steps: a walk. */
byte walked;
#define COUNT walked++; assert(walked < WALK)
#else
#define COUNT skip
#endif
#define SHOW(c) \
    printf(" %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d\n", row[c].state, row[c].fence, \
        row[c].attempts, row[c].refused, row[c].resends, row[c].repeats, row[c].keys, row[c].lease, row[c].next, \
        row[c].fcm, row[c].secret, row[c].over, row[c].done, row[c].seen, row[c].delivery, row[c].own, row[c].heard, \
        row[c].payload, row[c].restored, token)
#define STEP(name, c, a, b, d, e) COUNT; printf("= "); printf(name); printf(" %d %d %d %d %d\n<", c, a, b, d, e); SHOW(c)
#define DONE(c) printf(">"); SHOW(c)

/* --- the properties ------------------------------------------------------------------------------------------- */

#define waits(c) (row[c].state == ACCEPTED || row[c].state == RETRY)
#define sendable(c) (waits(c) || row[c].state == SENDING || row[c].state == UNKNOWN || \
    (row[c].state == SENT && row[c].delivery && !row[c].done))
#define holds(s, c) (slot[s].has != IDLE && slot[s].command == c)
#define may_post(s, c) (slot[s].has == HOLDS && slot[s].command == c && !slot[s].late)
#if SENDERS > 1
#define held(c) (holds(0, c) || holds(1, c))
#define may_be_posted(c) (may_post(0, c) || may_post(1, c))
#define underway(c) ((may_post(0, c) && slot[0].fence == row[c].fence) || \
    (may_post(1, c) && slot[1].fence == row[c].fence))
#else
#define held(c) holds(0, c)
#define may_be_posted(c) may_post(0, c)
#define underway(c) (may_post(0, c) && slot[0].fence == row[c].fence)
#endif

/* The rules that GET /v1/audit/commands checks for each row. */
#define audited(c) ( \
    row[c].attempts <= 1 + row[c].resends + row[c].repeats + row[c].refused && \
    row[c].refused <= row[c].attempts && row[c].attempts <= row[c].fence && \
    (row[c].repeats == 0 || row[c].delivery) && \
    (row[c].state != ACCEPTED || (row[c].attempts == 0 && !row[c].done)) && \
    ((row[c].state == SENDING) == (row[c].lease != UNSET)) && \
    (row[c].state != SENDING || (row[c].attempts > 0 && !row[c].done)) && \
    ((row[c].state == RETRY) == (row[c].next != UNSET)) && \
    (row[c].state != RETRY || (row[c].refused > 0 && !row[c].done)) && \
    (row[c].state != FAILED || row[c].refused > 0) && \
    (row[c].state != SENT || row[c].attempts > 0 || row[c].done) && \
    (row[c].state != UNKNOWN || ((row[c].attempts > 0 || row[c].restored) && !row[c].done)) && \
    (row[c].secret != KEPT || sendable(c)) )

/* After every step. The name behind an assertion is the property's, in docs/guarantees.md. */
inline check(c) {
#ifndef ONLY_MESSAGES
#ifndef FROZEN
    assert(row[c].state != SENT || row[c].done || row[c].truth == TAKEN);           /* D3_sent_is_true */
    assert((row[c].state != RETRY && row[c].state != FAILED && row[c].state != EXPIRED) ||
        row[c].done || row[c].truth <= NOT_TAKEN);                                  /* D3_refused_is_true */
    assert((row[c].state != UNKNOWN && row[c].state != CANCELLED) || row[c].former || restores > 0 || !underway(c));
                                                                                    /* D3_unknown_is_over */
#endif
    assert(row[c].secret != KEPT || sendable(c));                                   /* D4_secrets_are_wiped */
    assert(row[c].state == NONE || audited(c));                                     /* audit_accepts_what_happens */
#endif
    skip
}

/* --- the statements, by their names in transitions.toml --------------------------------------------------------- */

inline wipe(c) {
    if :: row[c].secret == KEPT -> row[c].secret = WIPED :: else fi
}

inline new_turn(c) { turn[c]++ }

/* A new command: its row, and no further state. */
inline create(c, p, until_answered, secret_parameter, by_us) {
    row[c].own = by_us; row[c].payload = p; row[c].delivery = until_answered; row[c].secret = secret_parameter;
    row[c].state = ACCEPTED;
    turn[c] = 0; used[c] = 0; decided[c] = 0; knows[c] = 0; answered[c] = 0
}

inline accept(c, p, until_answered, secret_parameter) {
    d_step {
        STEP("accept", c, p, until_answered, secret_parameter, 0);
        create(c, p, until_answered, secret_parameter, 1);
        DONE(c); check(c)
    }
}

/* A request with a known request_id: 422 for another payload, 409 while it is being sent, otherwise 200. */
inline replay(c, p) {
    d_step {
        STEP("replay", c, p, 0, 0, 0);
        if
#ifndef NO_HASH
        :: row[c].payload != p
#endif
        :: row[c].payload == p && row[c].state == SENDING
        :: else -> assert(row[c].payload == p)                                      /* D4_same_payload */
        fi;
        DONE(c)
    }
}

/* The effect of every claim on the row. From here on the sender holds it. */
inline hold(s, c) {
    assert(!row[c].done);                                                           /* D2_answered_is_not_sent */
    assert(!row[c].over);                                                           /* D3_expired_is_not_sent */
    slot[s].has = HOLDS; slot[s].command = c; slot[s].token = token; slot[s].turn = turn[c]; slot[s].late = 0;
    slot[s].blank = (row[c].secret == WIPED); slot[s].fence = row[c].fence + 1;
#ifndef NO_COMMIT
    row[c].state = SENDING; row[c].fence++; row[c].attempts++; row[c].lease = COMING; row[c].next = UNSET;
    row[c].fcm = COMING; row[c].seen = 0; row[c].heard = 0; row[c].truth = NOTHING;
    covered[c] = 1
#endif
}

#ifdef NO_COMMIT
#define locked(c) held(c)       /* The transaction of the claim is still open when the POST is made. */
#else
#define locked(c) false
#endif

#ifdef NO_NEVER_AGAIN
#define claimable(c) (waits(c) || (row[c].state == SENDING && row[c].lease == PASSED))
#else
#define claimable(c) waits(c)
#endif

#define can_claim(c) (claimable(c) && !row[c].done && row[c].next != COMING && !row[c].over && token != 0)
inline claim(s, c) {
    d_step {
        STEP("claim", c, s, 0, 0, 0);
        assert(!answered[c]);                                                       /* D2_answered_is_not_sent */
        assert(!row[c].former);                                                     /* D5_nothing_inherited */
        hold(s, c);
        DONE(c); check(c)
    }
}

#ifdef NO_BLANK
#define whole(c) true
#else
#define whole(c) (row[c].secret != WIPED)
#endif
#ifdef NO_UNTIL
#define repeatable(c) true
#else
#define repeatable(c) row[c].delivery
#endif
#ifdef NO_WAIT
#define fcm_is_done(c) true
#else
#define fcm_is_done(c) (row[c].fcm == PASSED && row[c].seen)
#endif
#define can_repeat(c) (repeatable(c) && (row[c].state == SENT || row[c].state == UNKNOWN) && !row[c].done && \
    !row[c].over && whole(c) && row[c].own && fcm_is_done(c) && token != 0)
inline repeat(s, c) {
    d_step {
        STEP("repeat", c, s, 0, 0, 0);
        assert(!answered[c]);                                                       /* D2_answered_is_not_sent */
        assert(!row[c].former);                                                     /* D5_nothing_inherited */
        assert(row[c].delivery);                                                       /* D6_only_when_chosen */
#ifndef FROZEN
        assert(live[c] == 0 && !may_be_posted(c));                                  /* D6_one_message_at_a_time */
#endif
        row[c].repeats++; new_turn(c); hold(s, c);
        DONE(c); check(c)
    }
}

#ifdef NO_UNANSWERED
#define unanswered(c) true
#else
#define unanswered(c) !row[c].done
#endif
#ifdef NO_KEY
#define new_key(c, k) true
#else
#define new_key(c, k) (((row[c].keys >> k) & 1) == 0)
#endif
#define can_resend(c, k) ((row[c].state == UNKNOWN || row[c].state == FAILED || row[c].state == EXPIRED || \
    row[c].state == SENT) && unanswered(c) && whole(c) && row[c].own && token != 0 && new_key(c, k))
inline resend(s, c, k) {
    d_step {
        STEP("resend", c, s, k, 0, 0);
        if :: (decided[c] >> k) & 1 :: else -> new_turn(c); decided[c] = decided[c] | (1 << k) fi;
        row[c].keys = row[c].keys | (1 << k); row[c].resends++; row[c].over = 0;
        row[c].former = 0; answered[c] = 0;     /* The decision applies to the device and the row in their current state. */
        hold(s, c);
        DONE(c); check(c)
    }
}

/* record_fcm_dispatch: accepted and claimed at once, by code that sends the message itself. */
inline claim_new(s, c) {
    d_step {
        STEP("claim_new", c, s, 0, 0, 0);
        create(c, 0, 0, NEVER, 0); hold(s, c);
        DONE(c); check(c)
    }
}

/* Not a statement: the sender's POST. */
inline post(s, answer, message) {
    d_step {
        c0 = slot[s].command;
        STEP("post", c0, s, answer, 0, 0);
        assert(!slot[s].blank);                                                     /* D4_secrets_are_sent */
        if
        :: answer == OK || answer == SILENT ->
            assert(((used[c0] >> slot[s].turn) & 1) == 0);                          /* D1_at_most_once */
            used[c0] = used[c0] | (1 << slot[s].turn);
#if MESSAGES
            live[c0] = live[c0] + message
#else
            knows[c0] = knows[c0] || message
#endif
        :: else
        fi;
#ifdef NO_RETRIES_OFF
        /* The client library sends it again if the response is lost. */
        if
        :: answer == SILENT ->
            assert(((used[c0] >> slot[s].turn) & 1) == 0)                           /* D1_at_most_once */
        :: else
        fi;
#endif
        if
        :: slot[s].fence == row[c0].fence && answer == OK -> row[c0].truth = TAKEN
        :: slot[s].fence == row[c0].fence && answer == SILENT -> row[c0].truth = PERHAPS
        :: slot[s].fence == row[c0].fence && answer != OK && answer != SILENT -> row[c0].truth = NOT_TAKEN
        :: else
        fi;
#ifdef NO_UNKNOWN
        slot[s].has = (answer == SILENT -> LATER : answer);
#else
        slot[s].has = answer;
#endif
        slot[s].late = 0; slot[s].blank = 0; slot[s].turn = 0;
        if :: answer == GONE :: else -> slot[s].token = 0 fi;
        DONE(c0); c0 = 0
    }
}

/* The sender has noticed that its time is over, and sends nothing. */
inline give_up(s) {
    d_step {
        c0 = slot[s].command;
        STEP("give_up", c0, s, 0, 0, 0);
        slot[s].has = LATER; slot[s].late = 0; slot[s].blank = 0; slot[s].turn = 0; slot[s].token = 0;
        if :: slot[s].fence == row[c0].fence && row[c0].truth == NOTHING -> row[c0].truth = NOT_TAKEN :: else fi;
        DONE(c0); c0 = 0
    }
}

inline crash(s) {
    d_step {
        STEP("crash", slot[s].command, s, 0, 0, 0);
        slot[s].has = IDLE; slot[s].fence = 0; slot[s].command = 0; slot[s].token = 0; slot[s].turn = 0;
        slot[s].late = 0; slot[s].blank = 0
    }
}

#ifdef NO_FENCE
#define mine(s, c) true
#else
#define mine(s, c) (slot[s].fence == row[c].fence)
#endif
#define can_settle(s, c) (mine(s, c) && (row[c].state == SENDING || row[c].state == UNKNOWN || \
    (row[c].state == SENT && row[c].done && !row[c].heard)))

#ifdef NO_SAME_TOKEN
#define same_token(s) true
#else
#define same_token(s) (token == slot[s].token)
#endif

/* `again`: the database's response is lost, so the same statement runs again. */
inline settle(s, again) {
    d_step {
        c0 = slot[s].command;
        STEP("settle", c0, s, slot[s].has, slot[s].fence, slot[s].token);
#ifdef NO_COMMIT
        row[c0].state = SENDING; row[c0].fence++; row[c0].attempts++;
#endif
        if
        :: can_settle(s, c0) ->
            if :: slot[s].has == REFUSED || slot[s].has == GONE || slot[s].has == LATER -> row[c0].refused++ :: else fi;
#ifndef NO_WIPE
            if
            :: row[c0].done || slot[s].has == REFUSED || slot[s].has == GONE || (slot[s].has == OK && !(row[c0].delivery && !row[c0].over)) ->
                wipe(c0)
            :: else
            fi;
#endif
            row[c0].next = UNSET;
            if
            :: row[c0].done -> row[c0].state = SENT
            :: !row[c0].done && slot[s].has == OK -> row[c0].state = SENT
            :: !row[c0].done && (slot[s].has == REFUSED || slot[s].has == GONE) -> row[c0].state = FAILED
            :: !row[c0].done && slot[s].has == LATER -> row[c0].state = RETRY; row[c0].next = COMING
            :: !row[c0].done && slot[s].has == SILENT -> row[c0].state = UNKNOWN
            fi;
            row[c0].lease = UNSET; row[c0].heard = 1;
            if
            :: row[c0].truth == NOTHING && slot[s].fence == row[c0].fence ->        /* The row was reset by a restore. */
                row[c0].truth = (slot[s].has == OK -> TAKEN : (slot[s].has == SILENT -> PERHAPS : NOT_TAKEN))
            :: else
            fi;
            if
            :: slot[s].has == GONE && same_token(s) ->
                assert(token == 0 || token == slot[s].token);                       /* D5_latest_token_stays */
                token = 0
            :: else
            fi
        :: else
        fi;
        DONE(c0); check(c0);
        if
        :: again
        :: else ->
            slot[s].has = IDLE; slot[s].fence = 0; slot[s].command = 0; slot[s].token = 0; slot[s].turn = 0;
            slot[s].late = 0; slot[s].blank = 0
        fi;
        c0 = 0
    }
}

#ifdef NO_LEASE
#define lease_over(c) true
#else
#define lease_over(c) (row[c].lease == PASSED)
#endif
#define can_end_lease(c) (row[c].state == SENDING && lease_over(c))
inline end_lease(c) {
    d_step {
        STEP("end_lease", c, 0, 0, 0, 0);
        row[c].state = (row[c].done -> SENT : UNKNOWN); row[c].lease = UNSET;
        DONE(c); check(c)
    }
}

#define can_expire(c) (waits(c) && row[c].over)
inline expire(c) {
    d_step {
        STEP("expire", c, 0, 0, 0, 0);
        row[c].state = EXPIRED; row[c].next = UNSET; wipe(c);
        DONE(c); check(c)
    }
}

/* An until_answered command keeps its state when it expires; only its secrets are wiped. */
#define can_forget_secrets(c) ((row[c].state == SENT || row[c].state == UNKNOWN) && row[c].delivery && row[c].over && \
    row[c].secret == KEPT)
inline forget_secrets(c) {
    d_step {
        STEP("forget_secrets", c, 0, 0, 0, 0);
        wipe(c);
        DONE(c); check(c)
    }
}

/* Includes commands that would be sent again automatically. */
#define may_be_cancelled(c) (waits(c) || row[c].state == UNKNOWN || \
    (row[c].state == SENT && row[c].delivery && !row[c].done && !row[c].over))
#ifdef NO_CANCEL_GUARD
#define can_cancel(c) (may_be_cancelled(c) || row[c].state == SENDING)
#else
#define can_cancel(c) may_be_cancelled(c)
#endif
inline cancel(c) {
    d_step {
        STEP("cancel", c, 0, 0, 0, 0);
        row[c].state = CANCELLED; row[c].next = UNSET; row[c].lease = UNSET; wipe(c);
        DONE(c); check(c)
    }
}

/* The device's answer, after FCM or pending_commands, possibly queued, in any order. The first one is kept. */
inline acknowledge(c) {
    d_step {
        STEP("acknowledge", c, 0, 0, 0, 0);
        if
        :: !row[c].done ->
            if :: row[c].state == FAILED || row[c].state == CANCELLED :: else -> row[c].state = SENT fi;
            row[c].lease = UNSET; row[c].next = UNSET; row[c].done = 1; answered[c] = 1; wipe(c)
        :: else
        fi;
        DONE(c); check(c)
    }
}

/* The device is enrolled again. Messages that FCM has for the former token reach no device in this model. */
#define taken_over(c) (waits(c) || row[c].state == SENDING || row[c].state == UNKNOWN || \
    (row[c].state == SENT && !row[c].done))
inline inherit(c) {
    STEP("take_over", c, 0, 0, 0, 0);
    if
    :: row[c].state != NONE ->
        row[c].former = 1;
#ifndef NO_TAKE_OVER
        if
        :: taken_over(c) ->
            row[c].state = CANCELLED; row[c].fence++; row[c].lease = UNSET; row[c].next = UNSET; wipe(c)
        :: else
        fi
#endif
    :: else
    fi;
    token = 0;
    DONE(c); check(c)
}
inline take_over() {
    d_step {
        takeovers++;
        inherit(0);
#if COMMANDS > 1
        inherit(1);
#endif
        skip
    }
}

/* A heartbeat lists pending commands and shows that the device is online. */
#define listed(c) (!row[c].over && !row[c].done && row[c].own && (waits(c) || row[c].state == UNKNOWN || \
    (row[c].state == SENT && row[c].delivery)))
inline heartbeat(c) {
    d_step {
        STEP("heartbeat", c, 0, 0, 0, 0);
        assert(!listed(c) || !row[c].former);                                       /* D5_nothing_inherited */
        assert(!listed(c) || row[c].secret != WIPED);                               /* D4_secrets_are_sent */
        if :: listed(c) -> knows[c] = 1 :: else fi;
        assert(!row[c].delivery || row[c].done || row[c].over || !row[c].own || knows[c] || (!waits(c) &&
            row[c].state != SENT && row[c].state != UNKNOWN));                      /* D6_listed_until_answered */
        if :: row[c].fcm == PASSED -> row[c].seen = 1 :: else fi;
        DONE(c)
    }
}

inline report_token(c) {
    d_step {
        STEP("report_token", c, 0, 0, 0, 0);
        reported++; token = reported;
        DONE(c)
    }
}

#ifdef NO_FCM_WAIT
#define can_retire(c) (row[c].state >= SENT && row[c].state != RETRY && row[c].over)
#else
#define can_retire(c) (row[c].state >= SENT && row[c].state != RETRY && row[c].over && row[c].fcm != COMING)
#endif
inline retire(c) {
    d_step {
        STEP("retire", c, 0, 0, 0, 0);
        assert(live[c] == 0);                                                       /* R1_key_outlives_message */
        row[c].state = NONE; row[c].fence = 0; row[c].attempts = 0; row[c].refused = 0; row[c].resends = 0;
        row[c].repeats = 0; row[c].keys = 0; row[c].truth = NOTHING; row[c].lease = UNSET; row[c].next = UNSET;
        row[c].fcm = UNSET; row[c].secret = NEVER; row[c].over = 0; row[c].done = 0; row[c].seen = 0; row[c].delivery = 0;
        row[c].own = 0; row[c].heard = 0; row[c].payload = 0; row[c].restored = 0; row[c].former = 0;
        covered[c] = 0; retentions++;
        DONE(c)
    }
}

/* --- a restore --------------------------------------------------------------------------------------------------- */

#if RESTORES
inline copy(to, from) {
    to.state = from.state; to.fence = from.fence; to.attempts = from.attempts; to.refused = from.refused;
    to.resends = from.resends; to.repeats = from.repeats; to.keys = from.keys; to.truth = from.truth;
    to.lease = from.lease; to.next = from.next; to.fcm = from.fcm; to.secret = from.secret; to.over = from.over;
    to.done = from.done; to.seen = from.seen; to.delivery = from.delivery; to.own = from.own; to.heard = from.heard;
    to.payload = from.payload; to.restored = from.restored; to.former = from.former
}

inline snapshot() {
    d_step {
        STEP("snapshot", 0, 0, 0, 0, 0);
        copy(snap[0], row[0]); snap_token = token; taken = 1
#if COMMANDS > 1
        ; copy(snap[1], row[1])
#endif
    }
}

inline go_back(c) {
    STEP("restore", c, 0, 0, 0, 0);
    if :: snap[c].state == NONE && row[c].state != NONE -> barred[c] = 1 :: else fi;
    copy(row[c], snap[c]);
    /* Resends that operators decide on from here on are new decisions. */
    decided[c] = row[c].keys; covered[c] = 0;
    DONE(c)
}
inline restore() {
    d_step {
        restoring = 1; restores++; token = snap_token;
        go_back(0);
#if COMMANDS > 1
        go_back(1);
#endif
        skip
    }
}

#ifdef NO_JUMP
#define RAISE 0
#else
#define RAISE JUMP
#endif
inline unknown_now(c) {
    STEP("after_restore", c, 0, 0, 0, 0);
    if
    :: row[c].state != NONE ->
#ifndef NO_AFTER_RESTORE
        if
        :: waits(c) || row[c].state == SENDING ->
            row[c].state = (row[c].done -> SENT : UNKNOWN); row[c].lease = UNSET; row[c].next = UNSET; row[c].over = 1;
            row[c].restored = 1
        :: else
        fi;
#ifndef NO_END_UNTIL
        if
        :: row[c].delivery && !row[c].done && (row[c].state == SENT || row[c].state == UNKNOWN) ->
            row[c].over = 1; row[c].restored = 1
        :: else
        fi;
#endif
        row[c].fence = row[c].fence + RAISE; row[c].fcm = COMING; row[c].seen = 0; covered[c] = 1;
#endif
    :: else
    fi;
    DONE(c); check(c)
}
inline after_restore() {
    d_step {
        restoring = 0;
        unknown_now(0);
#if COMMANDS > 1
        unknown_now(1);
#endif
        skip
    }
}
#endif

/* --- the processes, and when their steps are possible ----------------------------------------------------------------------- */

#if COMMANDS > 1
#define ANY(option) option(0) option(1)
#else
#define ANY(option) option(0)
#endif

#define calm !restoring
/* Senders are symmetric, so the second one starts only while the first is active. */
#define free_to_claim(s, c) (calm && slot[s].has == IDLE && (s == 0 || slot[0].has != IDLE) && row[c].attempts < ATTEMPTS && !locked(c))

/* Requests of operators' programs. The second client uses the same request_id for another command. */
#if UNTIL && SECRETS
#define KINDS(c, p) if :: accept(c, p, 0, NEVER) :: accept(c, p, 1, NEVER) :: accept(c, p, 0, KEPT) \
    :: accept(c, p, 1, KEPT) fi
#elif UNTIL
#define KINDS(c, p) if :: accept(c, p, 0, NEVER) :: accept(c, p, 1, NEVER) fi
#elif SECRETS
#define KINDS(c, p) if :: accept(c, p, 0, NEVER) :: accept(c, p, 0, KEPT) fi
#else
#define KINDS(c, p) accept(c, p, 0, NEVER)
#endif
#define SUBMIT(c) \
    :: atomic { calm && !barred[c] && row[c].state == NONE && p == 0 && (c == 0 || row[0].state != NONE) -> KINDS(c, p) } \
    :: atomic { calm && row[c].state != NONE && row[c].own -> replay(c, p) }
proctype Client(bit p) {
    do
    ANY(SUBMIT)
    od
}

/* An operator. */
#define CANCEL(c) :: atomic { calm && can_cancel(c) -> cancel(c) }
proctype Operator() {
    do
    ANY(CANCEL)
    od
}

/* A handler, the sweep or a resend: any process that claims, posts and settles. It may stop forever at any point. */
#define CLAIM(c) \
    :: atomic { free_to_claim(s, c) && can_claim(c) -> claim(s, c) } \
    :: atomic { free_to_claim(s, c) && can_repeat(c) -> repeat(s, c) }
#define RESEND(c) \
    :: atomic { free_to_claim(s, c) && RESENDS > 0 && can_resend(c, 0) -> resend(s, c, 0) } \
    :: atomic { free_to_claim(s, c) && RESENDS > 1 && row[c].keys != 0 && can_resend(c, 1) -> resend(s, c, 1) }
#define CLAIM_NEW(c) :: atomic { free_to_claim(s, c) && row[c].state == NONE && !barred[c] -> claim_new(s, c) }
#ifdef FROZEN
#define in_time(s) true
#else
#define in_time(s) !slot[s].late
#endif
proctype Sender(byte s) {
    do
    ANY(CLAIM)
#if RESENDS
    ANY(RESEND)
#endif
#if FOREIGN
    ANY(CLAIM_NEW)
#endif
    :: atomic { slot[s].has == HOLDS && in_time(s) ->
        if
        :: post(s, OK, 1)
        :: post(s, REFUSED, 0)
        :: post(s, GONE, 0)
        :: post(s, LATER, 0)
        :: post(s, SILENT, 0)
        :: post(s, SILENT, 1)       /* FCM has it, but does not respond */
        fi }
    :: atomic { slot[s].has == HOLDS && slot[s].late -> give_up(s) }
    :: atomic { slot[s].has > HOLDS -> settle(s, 0) }
    :: atomic { slot[s].has > HOLDS -> settle(s, 1) }
    :: atomic { slot[s].has != IDLE -> crash(s) }
    od
}

/* The statements of the sweep that send nothing. */
#define SWEEP(c) \
    :: atomic { calm && can_end_lease(c) -> end_lease(c) } \
    :: atomic { calm && can_expire(c) -> expire(c) } \
    :: atomic { calm && can_forget_secrets(c) -> forget_secrets(c) }
proctype Sweep() {
    do
    ANY(SWEEP)
    od
}

#define DEVICE(c) \
    :: atomic { row[c].state != NONE && knows[c] -> acknowledge(c) } \
    :: atomic { row[c].state != NONE && ((listed(c) && !knows[c]) || (row[c].fcm == PASSED && !row[c].seen)) -> \
        heartbeat(c) } \
    :: atomic { live[c] > 0 && !knows[c] -> d_step { STEP("deliver", c, 0, 0, 0, 0); knows[c] = 1; DONE(c) } } \
    :: atomic { live[c] > 0 -> d_step { STEP("drop", c, 0, 0, 0, 0); live[c]--; DONE(c) } }
proctype Device() {
    do
    ANY(DEVICE)
    :: atomic { reported < TOKENS -> report_token(0) }
    :: atomic { calm && takeovers < TAKEOVERS && row[0].state != NONE -> take_over() }
    od
}

#ifdef FOREVER
#define can_end(c) false
#else
#define can_end(c) (row[c].state != NONE && !row[c].over)
#endif
/* It has expired, and every holder knows it. */
inline time_over(c) {
    d_step {
        STEP("time_over", c, 0, 0, 0, 0);
        row[c].over = 1;
        if :: slot[0].has == HOLDS && slot[0].command == c -> slot[0].late = 1 :: else fi;
#if SENDERS > 1
        if :: slot[1].has == HOLDS && slot[1].command == c -> slot[1].late = 1 :: else fi;
#endif
        DONE(c)
    }
}
#define PASS(c) \
    :: atomic { row[c].next == COMING -> d_step { STEP("time_next", c, 0, 0, 0, 0); row[c].next = PASSED; DONE(c) } } \
    :: atomic { row[c].lease == COMING && !underway(c) -> \
        d_step { STEP("time_lease", c, 0, 0, 0, 0); row[c].lease = PASSED; DONE(c) } } \
    :: atomic { can_end(c) -> time_over(c) } \
    :: atomic { MESSAGES && row[c].fcm == COMING && row[c].lease != COMING && \
        (!covered[c] || (live[c] == 0 && !may_be_posted(c))) -> \
        d_step { STEP("time_fcm", c, 0, 0, 0, 0); row[c].fcm = PASSED; DONE(c) } }
#define LATE(s) :: atomic { slot[s].has == HOLDS && !slot[s].late -> \
    d_step { STEP("time_late", slot[s].command, s, 0, 0, 0); slot[s].late = 1; DONE(slot[s].command) } }
proctype Time() {
    do
    ANY(PASS)
    LATE(0)
#if SENDERS > 1
    LATE(1)
#endif
    od
}

#define RETIRE(c) :: atomic { calm && retentions < RETENTIONS && can_retire(c) && !held(c) -> retire(c) }
proctype Administrator() {
    do
#if RETENTIONS
    ANY(RETIRE)
#endif
#if RESTORES
    :: atomic { !taken && calm -> snapshot() }
    :: atomic { taken && calm && restores < RESTORES -> restore() }
    :: atomic { restoring -> after_restore() }
#endif
    :: false
    od
}

init {
    atomic {
        reported = 1; token = 1;
        run Client(0);
#if CLIENTS > 1
        run Client(1);
#endif
        run Operator();
        run Sender(0);
#if SENDERS > 1
        run Sender(1);
#endif
        run Sweep(); run Device(); run Time(); run Administrator()
    }
}

/* --- temporal properties, if sweeps and time continue (weak fairness) ------------------------------------------------ */

#define open(c) (waits(c) || row[c].state == SENDING)

#ifdef LTL
ltl D3_every_command_ends { [] (open(0) -> <> !open(0)) }
ltl D2_answer_is_kept { [] (row[0].done -> [] row[0].done) }
ltl D5_cancelled_is_final { [] (row[0].state == CANCELLED -> [] (row[0].state == CANCELLED)) }
/* With FOREVER, in which no command expires: a command that only an answer can end is sent again. */
ltl D6_sent_again { [] ((row[0].delivery && row[0].state == SENT && row[0].attempts < ATTEMPTS && token != 0) ->
    <> (row[0].done || row[0].state != SENT || token == 0)) }
#endif
