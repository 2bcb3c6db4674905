------------------------------ MODULE Election ------------------------------
(* Leader election over an etcd-like store, seen from the candidates.        *)
(* Time is counted in ticks; every deadline is a countdown, so time itself   *)
(* is unbounded and only revisions, leases and faults are bounded.           *)
(* What is modelled, what is not, and all results: README.md beside this.    *)
EXTENDS Integers, FiniteSets, Sequences, TLC

CONSTANTS
  Procs,          \* processes; each is a candidate while it runs
  Twins,          \* processes, down at first, that use the status directory of Order[1]
  NL,             \* leases each process may be granted
  TTL, Margin,    \* in ticks
  Drift,          \* 0: exact clocks; N: a process's clock may miss one tick, then none for N ticks
  MaxRev,         \* state constraint: revisions of the store
  MaxNet,         \* state constraint: requests under way (a late one included)
  Start,          \* "empty"; "queue": all of Order stand already; "solo": only the first
  Order,          \* the processes that are no twins, as a sequence
  WaitRenew,      \* TRUE: waiters renew and prove too (FALSE: only who is first in its replica)
  Files,          \* TRUE: the status file is modelled
  Grants,         \* TRUE: a grant is a request like others (FALSE: granted at once, without fail)
  GrantProof,     \* TRUE: a grant stands in for the renewal of the first proof, the campaign
                  \* Txn for its read (the design does not say so; a session could be built so)
  (* fault and command budgets *)
  Crashes, Losses, Resigns, Hands, Moves, Pauses, Wants, Exts, Elects, Asks,
  (* rules of the design; TRUE is "rule on" unless noted *)
  AtUse,          \* "may I act" is computed from the clock at use (FALSE: a flag, cleared by a timer)
  ReadProof,      \* a proof is a renewal and a linearizable read after it (FALSE: the renewal alone)
  TermProof,      \* the read must carry the raft term of the renewal
  AtomicRev,      \* all events of one revision are applied before anything is decided
  OnceSent,       \* a term whose resign/handover was sent never acts again
  Retry,          \* an unanswered resign is sent again, or the lease revoked, or left to end
  RevokeFresh,    \* after a revoke was sent, the next candidacy takes a new lease
  NewLease,       \* TRUE: after an unanswered campaign a new lease, the old one revoked;
                  \* FALSE, as the design: the same Txn again on the same lease
  AdoptCurrent,   \* a key that appears is adopted only when it hangs on the current lease
  CleanCounts,    \* the guarded delete of an unwanted key gives that key up, like a resign
  OutRule,        \* 3.4: the key is given up only when no status file says leader any more
  Serial,         \* a leader write still under way counts as said
  SessRm,         \* session.json goes before a planned give-up
  ResumeCheck,    \* a resume needs the read after the renewal: own key, create revision
  Flock,          \* one process per status directory at a time (the lock ends with its process)
  FlockFirst,     \* session.json is read under that lock (FALSE: read first, then locked)
  GrantFirst,     \* "lease already exists" to a retry: the deadline counts from the first try
  GrantRenew,     \* the same: the TTL is read by a renewal before anything else
  TokenMatch,     \* a leader obeys only a request that names its own token
  AskGuard,       \* a request is put only while a key with the token it names exists
  PauseRule,      \* no acting while a pause key is in the replica, no proof while one is read
  MoveGuard,      \* moving waiters is guarded by the mover's own key
  OwnByRev,       \* own key = name + create revision (FALSE: name only)
  HandFail        \* after a refused handover Txn: "resign" | "stay" | "act"

VARIABLES
  rev, key, ctl, lease, term,     \* the store; key[x] = create revision, 0 = absent
  q, rep,                         \* per process: snapshots not yet seen; replica
  ps, net,                        \* processes, requests
  file, pw, sess,                 \* status file, write under way, session.json
  bud, maxA, ext                  \* budgets, largest token that acted, outside deletes

store == <<rev, key, ctl, lease, term>>
vars == <<rev, key, ctl, lease, term, q, rep, ps, net, file, pw, sess, bud, maxA, ext>>

L == Procs \X (1..NL)               \* a lease is named by who asked for it
NoL == <<"none", 0>>
Dir(p) == IF p \in Twins THEN Order[1] ELSE p      \* file and sess belong to a directory
Ctl0 == [pause |-> FALSE, asks |-> {}]             \* pause key; tokens named by request keys
NoSess == [l |-> NoL, tok |-> 0]
dec(n) == IF n > 0 THEN n - 1 ELSE 0
max(a, b) == IF a > b THEN a ELSE b
SetMax(S) == CHOOSE x \in S : \A y \in S : y <= x

(* t kind, p sender, l lease, c token, d countdown since sending, a = somebody waits for the answer *)
M(t, p, l, c) == [t |-> t, p |-> p, l |-> l, c |-> c, d |-> 0, a |-> TRUE,
                  tl |-> NoL, tc |-> 0, vs |-> {}]
Snap(k, c, r) == [k |-> k, c |-> c, r |-> r]
Cur == Snap(key, ctl, rev)
Me(p) == ps[p].l
Mine(p, x) == x[1] = p \/ x = Me(p)
Waits(p, T) == \E m \in net : m.p = p /\ m.a /\ m.t \in T

Order2 == <<"p1", "p2">>
Order3 == <<"p1", "p2", "p3">>
In0(x) == /\ x[2] = 1 /\ x[1] \notin Twins
          /\ Start = "queue" \/ (Start = "solo" /\ x[1] = Order[1])
K0 == [x \in L |-> IF In0(x) THEN CHOOSE i \in 1..Len(Order) : Order[i] = x[1] ELSE 0]
R0 == CASE Start = "queue" -> Len(Order) [] Start = "solo" -> 1 [] OTHER -> 0
Init ==
  /\ rev = R0 /\ key = K0 /\ ctl = Ctl0 /\ term = 1
  /\ lease = [x \in L |-> IF K0[x] = 0 THEN -2 ELSE TTL]     \* -2: never granted, -1: ended
  /\ q = [p \in Procs |-> <<>>]
  /\ rep = [p \in Procs |-> Snap(K0, Ctl0, R0)]
  /\ ps = [p \in Procs |-> [up |-> p \notin Twins, l |-> IF In0(<<p, 1>>) THEN <<p, 1>> ELSE NoL,
                            st |-> IF In0(<<p, 1>>) THEN "stand" ELSE "none", tok |-> K0[<<p, 1>>],
                            gu |-> {}, dl |-> IF In0(<<p, 1>>) THEN TTL - Margin ELSE 0,
                            rp |-> 0, pd |-> 0, pt |-> 0, gd |-> 0, od |-> 0, skip |-> 0,
                            flag |-> FALSE, want |-> TRUE, pk |-> NoSess]]
  /\ net = {} /\ file = [p \in Procs |-> 0] /\ pw = [p \in Procs |-> 0]
  /\ sess = [p \in Procs |-> [l |-> ps[p].l, tok |-> ps[p].tok]]
  /\ bud = [crash |-> Crashes, lost |-> Losses, res |-> Resigns, hand |-> Hands, move |-> Moves,
            pz |-> Pauses, want |-> Wants, ext |-> Exts, el |-> Elects, ask |-> Asks]
  /\ maxA = (IF Start = "empty" THEN 0 ELSE 1) /\ ext = [p \in Procs |-> 0]

-----------------------------------------------------------------------------
FirstIn(k, x) == k[x] # 0 /\ \A y \in L : k[y] # 0 => k[y] >= k[x]

Acts(p) ==
  LET s == ps[p] IN
  /\ s.up /\ s.l # NoL /\ s.st = "stand" /\ s.tok # 0
  /\ OnceSent => s.tok \notin s.gu
  /\ IF AtUse THEN s.dl > 0 ELSE s.flag
  /\ PauseRule => ~rep[p].c.pause
  /\ FirstIn(rep[p].k, Me(p))
  /\ OwnByRev => rep[p].k[Me(p)] = s.tok

Leads(p) == Acts(p) \/ file[Dir(p)] > 0      \* a program that reads the old file acts too

(* push a new revision to every live process's watch; the process `who` gets it with its answer *)
PushAll(k, c, who) ==
  LET s == Snap(k, c, rev + 1) IN
  /\ rev' = rev + 1 /\ key' = k /\ ctl' = c
  /\ q' = [p \in Procs |-> IF p = who \/ ~ps[p].up THEN <<>> ELSE Append(q[p], s)]
  /\ rep' = [p \in Procs |-> IF p = who THEN s ELSE rep[p]]
Push(k, who) == PushAll(k, ctl, who)
Still == UNCHANGED <<rev, key, ctl, q, rep>>
Quietly(who) ==        \* no new revision; `who` gets the present range with its answer
  /\ UNCHANGED <<rev, key, ctl>>
  /\ q' = [p \in Procs |-> IF p = who THEN <<>> ELSE q[p]]
  /\ rep' = [p \in Procs |-> IF p = who THEN Cur ELSE rep[p]]

Set(p, f) == ps' = [ps EXCEPT ![p] = f @@ @]
Gone(p) == [st |-> "none", tok |-> 0, dl |-> 0, rp |-> 0, od |-> 0, flag |-> FALSE]
LoseLease(p) == [l |-> NoL, gd |-> 0] @@ Gone(p)
NoResume(p) == [st |-> "boot"] @@ LoseLease(p)

-----------------------------------------------------------------------------
(* Sessions *)
SendRenew(p) ==
  /\ ps[p].up /\ ps[p].l # NoL /\ ps[p].rp = 0
  /\ \/ /\ ps[p].st = "stand" /\ ps[p].dl < TTL - Margin
        /\ WaitRenew \/ FirstIn(rep[p].k, Me(p))  \* a waiter's lease may also just happen not to expire
     \/ ps[p].st \in {"resume", "ttl"}
  /\ ~Waits(p, {"renew"})
  /\ net' = net \cup {[M("renew", p, Me(p), 0) EXCEPT !.d = TTL - Margin]}
  /\ UNCHANGED <<store, q, rep, ps, file, pw, sess, bud, ext>>

RenewAnswer(p, m, t) ==   \* the state of p after a positive answer
  CASE Me(p) # m.l -> [rp |-> 0]
    [] Me(p) = m.l /\ ps[p].st = "ttl" -> [st |-> "none"]
    [] Me(p) = m.l /\ ps[p].st = "resume" /\ ~ResumeCheck -> [st |-> "stand", dl |-> m.d]
    [] OTHER -> IF ReadProof \/ ps[p].st = "resume" THEN [rp |-> 1, pd |-> m.d, pt |-> t]
                ELSE [dl |-> max(ps[p].dl, m.d)]

ApplyRenew(m) ==
  /\ m.t = "renew" /\ net' = net \ {m}
  /\ LET p == m.p IN
     IF lease[m.l] >= 0
     THEN /\ lease' = [lease EXCEPT ![m.l] = TTL]
          /\ IF m.a THEN Set(p, RenewAnswer(p, m, term)) ELSE UNCHANGED ps
     ELSE /\ UNCHANGED lease
          /\ IF m.a /\ Me(p) = m.l
             THEN Set(p, IF ps[p].st = "resume" THEN NoResume(p) ELSE LoseLease(p))
             ELSE UNCHANGED ps
  /\ Still /\ UNCHANGED <<term, file, pw, sess, bud, ext>>

(* a deposed etcd leader answers a renewal that the cluster never sees *)
StaleRenew(m) ==
  /\ m.t = "renew" /\ m.a /\ term > 1 /\ lease[m.l] # -2
  /\ net' = net \ {m} /\ Set(m.p, RenewAnswer(m.p, m, term - 1))
  /\ UNCHANGED <<store, q, rep, file, pw, sess, bud, ext>>

EtcdElect ==           \* the new leader of etcd grants every lease anew
  /\ bud.el > 0 /\ bud' = [bud EXCEPT !.el = @ - 1] /\ term' = term + 1
  /\ lease' = [x \in L |-> IF lease[x] >= 0 THEN TTL ELSE lease[x]]
  /\ Still /\ UNCHANGED <<ps, net, file, pw, sess, ext>>

ReadKey(p) ==          \* the linearizable read that completes a proof
  /\ ps[p].up /\ ps[p].rp = 1
  /\ LET s == ps[p]
         there == key[s.l] = s.tok \/ (~OwnByRev /\ key[s.l] # 0)
         proof == (TermProof => s.pt = term) /\ (PauseRule => ~ctl.pause) IN
     CASE s.st \notin {"stand", "stop", "resume"} \/ s.l = NoL -> Set(p, [rp |-> 0, pd |-> 0, pt |-> 0])
       [] s.st = "resume" /\ s.l # NoL ->
            Set(p, [rp |-> 0, pd |-> 0, pt |-> 0] @@
                   (CASE there /\ proof -> [st |-> "stand", dl |-> s.pd]
                      [] there /\ ~proof -> [rp |-> 0]
                      [] OTHER -> NoResume(p)))
       [] OTHER ->
            Set(p, [pd |-> 0, pt |-> 0] @@
                   (IF there THEN [rp |-> 0, dl |-> IF proof THEN max(s.dl, s.pd) ELSE s.dl]
                    ELSE Gone(p)))
  /\ UNCHANGED <<store, q, rep, net, file, pw, sess, bud, ext>>

Expire(x) ==
  /\ lease[x] = 0 /\ lease' = [lease EXCEPT ![x] = -1]
  /\ IF key[x] # 0 THEN Push([key EXCEPT ![x] = 0], "nobody") ELSE Still
  /\ UNCHANGED <<term, ps, net, file, pw, sess, bud, ext>>

ApplyRevoke(m) ==
  /\ m.t = "revoke" /\ net' = net \ {m}
  /\ IF lease[m.l] >= 0
     THEN /\ lease' = [lease EXCEPT ![m.l] = -1]
          /\ IF key[m.l] # 0 THEN Push([key EXCEPT ![m.l] = 0], "nobody") ELSE Still
     ELSE Still /\ UNCHANGED lease
  /\ UNCHANGED <<term, ps, file, pw, sess, bud, ext>>

-----------------------------------------------------------------------------
(* Grants with an id of the candidate's own choice: a lost answer is followed by the same grant again *)
Unused(p, n) == lease[<<p, n>>] = -2 /\ ~\E m \in net : m.l = <<p, n>>
Fresh(p, n) == Unused(p, n) /\ \A i \in 1..(n-1) : ~Unused(p, i)
GrantTry(p, x) == [M("grant", p, x, 0) EXCEPT !.d = TTL - Margin]
FromGrant(n) == IF GrantProof THEN n ELSE 0

SendGrant(p) ==
  /\ Grants /\ ps[p].up /\ ps[p].st = "none" /\ ps[p].want /\ ~rep[p].c.pause /\ ps[p].l = NoL
  /\ \E n \in 1..NL :
       /\ Fresh(p, n) /\ net' = net \cup {GrantTry(p, <<p, n>>)}
       /\ Set(p, [l |-> <<p, n>>, st |-> "grant", gd |-> FromGrant(TTL - Margin)] @@ Gone(p))
  /\ UNCHANGED <<store, q, rep, file, pw, sess, bud, ext>>
GrantAgain(p) ==
  /\ ps[p].up /\ ps[p].st = "grant" /\ ~Waits(p, {"grant"})
  /\ net' = net \cup {GrantTry(p, Me(p))}
  /\ UNCHANGED <<store, q, rep, ps, file, pw, sess, bud, ext>>

ApplyGrant(m) ==       \* a late try also makes an ended lease anew
  /\ m.t = "grant" /\ net' = net \ {m}
  /\ LET p == m.p
         made == lease[m.l] < 0
         hears == m.a /\ ps[p].st = "grant" /\ Me(p) = m.l IN
     /\ lease' = IF made THEN [lease EXCEPT ![m.l] = TTL] ELSE lease
     /\ CASE ~hears -> UNCHANGED ps
          [] hears /\ made -> Set(p, [st |-> "none", gd |-> FromGrant(m.d)])
          [] OTHER -> Set(p, [st |-> IF GrantRenew THEN "ttl" ELSE "none",
                              gd |-> IF GrantFirst THEN ps[p].gd ELSE FromGrant(m.d)])
  /\ Still /\ UNCHANGED <<term, file, pw, sess, bud, ext>>

-----------------------------------------------------------------------------
(* Campaign *)
SendCamp(p) ==         \* with a grant first where there is no lease
  /\ ps[p].up /\ ps[p].st = "none" /\ ps[p].want /\ ~rep[p].c.pause
  /\ IF ps[p].l = NoL
     THEN \E n \in 1..NL :
            /\ ~Grants /\ Fresh(p, n)
            /\ lease' = [lease EXCEPT ![<<p, n>>] = TTL]
            /\ Set(p, [l |-> <<p, n>>, st |-> "camp"] @@ Gone(p))
            /\ net' = net \cup {M("camp", p, <<p, n>>, 0)}
     ELSE /\ rep[p].k[Me(p)] = 0 /\ UNCHANGED lease
          /\ Set(p, [st |-> "camp", tok |-> 0, dl |-> 0])
          /\ net' = net \cup {M("camp", p, Me(p), 0)}
  /\ Still /\ UNCHANGED <<term, file, pw, sess, bud, ext>>

Stand(p, c, d) == [st |-> "stand", tok |-> c, dl |-> IF ReadProof THEN d ELSE ps[p].dl, flag |-> FALSE]
SessOf(p, x, c) == [sess EXCEPT ![Dir(p)] = [l |-> x, tok |-> c]]
SessGone(p) == IF SessRm THEN [sess EXCEPT ![Dir(p)] = NoSess] ELSE sess

ApplyCamp(m) ==
  /\ m.t = "camp" /\ net' = net \ {m}
  /\ LET p == m.p
         put == lease[m.l] >= 0 /\ key[m.l] = 0 /\ ~ctl.pause
         hears == m.a /\ ps[p].st = "camp"
         who == IF hears THEN p ELSE "nobody" IN
     /\ IF put THEN Push([key EXCEPT ![m.l] = rev + 1], who) ELSE Quietly(who)
     /\ IF ~hears THEN UNCHANGED <<ps, sess>>
        ELSE LET c == IF put THEN rev + 1 ELSE key[m.l] IN
             IF lease[m.l] < 0 THEN Set(p, LoseLease(p)) /\ UNCHANGED sess
             ELSE IF c # 0 /\ ps[p].want /\ (OnceSent => c \notin ps[p].gu)
             THEN Set(p, Stand(p, c, ps[p].gd)) /\ sess' = SessOf(p, m.l, c)
             ELSE Set(p, [st |-> "none"]) /\ UNCHANGED sess
  /\ UNCHANGED <<lease, term, file, pw, bud, ext>>

(* a key of ours that we did not hear about *)
Known(p, x) ==
  /\ ps[p].l # NoL /\ x = Me(p) /\ rep[p].k[x] = ps[p].tok
  /\ ps[p].st \in {"stand", "stop", "giveup"}
Adoptable(p, x) ==
  /\ ps[p].want /\ ps[p].st \in {"none", "camp"} /\ ps[p].l # NoL
  /\ rep[p].k[x] # 0 /\ rep[p].k[x] \notin ps[p].gu
  /\ AdoptCurrent => x = Me(p)
Adopt(p, x) ==
  /\ ps[p].up /\ Mine(p, x) /\ ps[p].l # NoL /\ Adoptable(p, x)
  /\ Set(p, [l |-> x] @@ Stand(p, rep[p].k[x], 0))
  /\ sess' = SessOf(p, x, rep[p].k[x])
  /\ net' = {IF m.p = p /\ m.t = "camp" THEN [m EXCEPT !.a = FALSE] ELSE m : m \in net}
  /\ UNCHANGED <<store, q, rep, file, pw, bud, ext>>

NeedsClean(p, x) ==
  /\ Mine(p, x) /\ rep[p].k[x] # 0 /\ ps[p].st \notin {"boot", "resume", "camp"}
  /\ ~Known(p, x) /\ ~Adoptable(p, x)
  /\ ~\E m \in net : m.t = "del" /\ m.l = x /\ m.c = rep[p].k[x]
Clean(p, x) ==
  /\ ps[p].up /\ NeedsClean(p, x)
  /\ Set(p, [gu |-> IF CleanCounts THEN ps[p].gu \cup {rep[p].k[x]} ELSE ps[p].gu])
  /\ net' = net \cup {[M("del", p, x, rep[p].k[x]) EXCEPT !.a = FALSE]}
  /\ sess' = IF sess[Dir(p)].tok = rep[p].k[x] THEN SessGone(p) ELSE sess
  /\ UNCHANGED <<store, q, rep, file, pw, bud, ext>>

(* the own key is gone from the replica *)
KeyLost(p) ==
  /\ ps[p].up /\ ps[p].st \in {"stand", "stop", "giveup"} /\ ps[p].l # NoL
  /\ rep[p].r >= ps[p].tok
  /\ IF OwnByRev THEN rep[p].k[Me(p)] # ps[p].tok ELSE rep[p].k[Me(p)] = 0
  /\ Set(p, Gone(p))
  /\ net' = {IF m.p = p /\ m.t # "renew" THEN [m EXCEPT !.a = FALSE] ELSE m : m \in net}
  /\ UNCHANGED <<store, q, rep, file, pw, sess, bud, ext>>

-----------------------------------------------------------------------------
(* Giving up *)
MayGiveUp(p) == OutRule => (file[Dir(p)] = 0 /\ (Serial => pw[p] = 0))

StepDown(p) ==         \* state -> follower; on command, or the first in the queue sees a pause key
  /\ ps[p].up /\ ps[p].st = "stand"
  /\ \/ bud.res > 0 /\ bud' = [bud EXCEPT !.res = @ - 1]
     \/ rep[p].c.pause /\ FirstIn(rep[p].k, Me(p)) /\ UNCHANGED bud
  /\ Set(p, [st |-> "stop"])
  /\ UNCHANGED <<store, q, rep, net, file, pw, sess, ext>>

(* requests: <election>.control/request/<random>, read by whoever is first in its replica *)
Heeds(p, c) ==
  /\ ps[p].up /\ ps[p].st = "stand" /\ FirstIn(rep[p].k, Me(p)) /\ c \in rep[p].c.asks
  /\ TokenMatch => c = ps[p].tok
Obey(p) ==
  /\ \E c \in rep[p].c.asks : Heeds(p, c) /\ Set(p, [st |-> "stop", od |-> c])
  /\ UNCHANGED <<store, q, rep, net, file, pw, sess, bud, ext>>

SendAsk ==             \* the asker has read the leader's key; its Txn takes effect at any later time
  /\ bud.ask > 0 /\ bud' = [bud EXCEPT !.ask = @ - 1]
  /\ \E x \in L : FirstIn(key, x) /\ net' = net \cup {M("ask", "asker", NoL, key[x])}
  /\ UNCHANGED <<store, q, rep, ps, file, pw, sess, ext>>
ApplyAsk(m) ==
  /\ m.t = "ask" /\ net' = net \ {m}
  /\ IF AskGuard => \E x \in L : key[x] = m.c
     THEN PushAll(key, [ctl EXCEPT !.asks = @ \cup {m.c}], "nobody") ELSE Still
  /\ UNCHANGED <<lease, term, ps, file, pw, sess, bud, ext>>
AskGone ==             \* the asker's lease ends, or it takes the request back
  /\ \E c \in ctl.asks : PushAll(key, [ctl EXCEPT !.asks = @ \ {c}], "nobody")
  /\ UNCHANGED <<lease, term, ps, net, file, pw, sess, bud, ext>>

GiveUp(p) == [st |-> "giveup", gu |-> IF OnceSent THEN ps[p].gu \cup {ps[p].tok} ELSE ps[p].gu]

SendResign(p) ==
  /\ ps[p].up /\ ps[p].st = "stop" /\ MayGiveUp(p)
  /\ Set(p, GiveUp(p)) /\ sess' = SessGone(p)
  /\ net' = net \cup {M("del", p, Me(p), ps[p].tok)}
  /\ UNCHANGED <<store, q, rep, file, pw, bud, ext>>

ApplyDel(m) ==
  /\ m.t = "del" /\ net' = net \ {m}
  /\ LET hears == m.a /\ ps[m.p].st = "giveup" /\ ps[m.p].tok = m.c
         who == IF hears THEN m.p ELSE "nobody" IN
     /\ IF key[m.l] = m.c THEN Push([key EXCEPT ![m.l] = 0], who) ELSE Quietly(who)
     /\ IF hears THEN Set(m.p, Gone(m.p)) ELSE UNCHANGED ps
  /\ UNCHANGED <<lease, term, file, pw, sess, bud, ext>>

Before(p, x) == {y \in L : rep[p].k[y] # 0 /\ y # Me(p) /\ y # x /\ rep[p].k[y] < rep[p].k[x]}
Pairs(p, S) == {<<y, rep[p].k[y]>> : y \in S}

Move(p) ==             \* the leader, still acting, moves the waiters before a target
  /\ Acts(p) /\ bud.move > 0 /\ bud' = [bud EXCEPT !.move = @ - 1]
  /\ \E x \in L : /\ rep[p].k[x] # 0 /\ x # Me(p) /\ Before(p, x) # {}
                  /\ net' = net \cup {[M("move", p, Me(p), ps[p].tok) EXCEPT
                                        !.vs = Pairs(p, Before(p, x)), !.a = FALSE]}
  /\ UNCHANGED <<store, q, rep, ps, file, pw, sess, ext>>

ApplyMove(m) ==
  /\ m.t = "move" /\ net' = net \ {m}
  /\ IF (MoveGuard => key[m.l] = m.c) /\ \A v \in m.vs : key[v[1]] = v[2]
     THEN Push([x \in L |-> IF \E v \in m.vs : v[1] = x THEN 0 ELSE key[x]], "nobody")
     ELSE Still
  /\ UNCHANGED <<lease, term, ps, file, pw, sess, bud, ext>>

SendHand(p) ==         \* own key and what stands before the target, in one Txn
  /\ ps[p].up /\ ps[p].st = "stop" /\ MayGiveUp(p)
  /\ FirstIn(rep[p].k, Me(p)) /\ bud.hand > 0 /\ bud' = [bud EXCEPT !.hand = @ - 1]
  /\ \E x \in L : /\ rep[p].k[x] # 0 /\ x # Me(p) /\ rep[p].k[x] > ps[p].tok
                  /\ net' = net \cup {[M("hand", p, Me(p), ps[p].tok) EXCEPT !.tl = x,
                                        !.tc = rep[p].k[x], !.vs = Pairs(p, Before(p, x))]}
  /\ Set(p, GiveUp(p)) /\ sess' = SessGone(p)
  /\ UNCHANGED <<store, q, rep, file, pw, ext>>

ApplyHand(m) ==
  /\ m.t = "hand"
  /\ LET p == m.p
         ok == key[m.l] = m.c /\ key[m.tl] = m.tc /\ \A v \in m.vs : key[v[1]] = v[2]
         hears == m.a /\ ps[p].st = "giveup" /\ ps[p].tok = m.c
         who == IF hears THEN p ELSE "nobody" IN
     /\ IF ok THEN Push([x \in L |-> IF x = m.l \/ \E v \in m.vs : v[1] = x THEN 0 ELSE key[x]], who)
        ELSE Quietly(who)
     /\ IF ~hears THEN UNCHANGED ps /\ net' = net \ {m}
        ELSE IF ok \/ key[m.l] # m.c THEN Set(p, Gone(p)) /\ net' = net \ {m}
        ELSE CASE HandFail = "resign" ->
                    /\ net' = (net \ {m}) \cup {M("del", p, m.l, m.c)} /\ UNCHANGED ps
               [] HandFail = "act" ->
                    /\ net' = net \ {m}
                    /\ IF \E n \in net : /\ n # m /\ n.p = p /\ n.t \in {"del", "hand", "revoke"}
                                         /\ n.c = m.c
                       THEN UNCHANGED ps    \* another request of this term is still unanswered
                       ELSE Set(p, [st |-> "stand", gu |-> ps[p].gu \ {m.c}])
               [] OTHER -> net' = net \ {m} /\ UNCHANGED ps
  /\ UNCHANGED <<lease, term, file, pw, sess, bud, ext>>

(* what follows an unanswered request of a given-up term *)
AfterGiveUp(p) ==
  /\ ps[p].up /\ ps[p].st = "giveup" /\ ~Waits(p, {"del", "hand"})
  /\ IF ~OnceSent THEN Set(p, [st |-> "stand"]) /\ UNCHANGED net
     ELSE /\ Retry
          /\ HandFail = "stay" => \E m \in net : m.p = p /\ m.t \in {"del", "hand"} /\ m.c = ps[p].tok
          /\ \/ net' = net \cup {M("del", p, Me(p), ps[p].tok)} /\ UNCHANGED ps
             \/ /\ net' = net \cup {[M("revoke", p, Me(p), 0) EXCEPT !.a = FALSE]}
                /\ IF RevokeFresh THEN Set(p, LoseLease(p)) ELSE Set(p, Gone(p))
             \/ Set(p, LoseLease(p)) /\ UNCHANGED net
  /\ UNCHANGED <<store, q, rep, file, pw, sess, bud, ext>>

-----------------------------------------------------------------------------
(* Faults and the outside *)
Timeout(m) ==          \* the candidate waits no longer; the request may still take effect, or never
  /\ m.a /\ m.t \notin {"renew", "ask"} /\ bud.lost > 0 /\ bud' = [bud EXCEPT !.lost = @ - 1]
  /\ LET late == (net \ {m}) \cup {[m EXCEPT !.a = FALSE]} IN
     IF m.t = "camp" /\ ps[m.p].st = "camp"
     THEN IF NewLease
          THEN /\ net' = late \cup {[M("revoke", m.p, m.l, 0) EXCEPT !.a = FALSE]}
               /\ Set(m.p, LoseLease(m.p))
          ELSE net' = late /\ Set(m.p, [st |-> "none"])
     ELSE net' = late /\ UNCHANGED ps
  /\ UNCHANGED <<store, q, rep, file, pw, sess, ext>>

Deliver(p) ==
  /\ ps[p].up /\ q[p] # <<>>
  /\ LET h == Head(q[p])
         diff == {x \in L : rep[p].k[x] # h.k[x]} IN
     \/ rep' = [rep EXCEPT ![p] = h] /\ q' = [q EXCEPT ![p] = Tail(@)]
     \/ /\ ~AtomicRev /\ Cardinality(diff) > 1
        /\ \E x \in diff : rep' = [rep EXCEPT ![p].k[x] = h.k[x]]
        /\ UNCHANGED q
  /\ UNCHANGED <<store, ps, net, file, pw, sess, bud, ext>>

Flag(p) ==             \* only for AtUse = FALSE: set on a proof, cleared by a timer that may run late
  /\ ~AtUse /\ ps[p].up /\ ps[p].flag # (ps[p].dl > 0)
  /\ Set(p, [flag |-> ps[p].dl > 0])
  /\ UNCHANGED <<store, q, rep, net, file, pw, sess, bud, ext>>

WriteLeader(p) ==      \* starts a write in a thread; it lands at some time, or never
  /\ Files /\ Acts(p) /\ pw[p] = 0 /\ ps[p].dl > 0 /\ file[Dir(p)] # ps[p].dl
  /\ pw' = [pw EXCEPT ![p] = ps[p].dl]
  /\ UNCHANGED <<store, q, rep, ps, net, file, sess, bud, ext>>
Land(p) ==
  /\ pw[p] > 0 /\ file' = [file EXCEPT ![Dir(p)] = pw[p]] /\ pw' = [pw EXCEPT ![p] = 0]
  /\ UNCHANGED <<store, q, rep, ps, net, sess, bud, ext>>
WriteFollower(p) ==    \* or unlink; never happening = all writes fail; a resume leaves the file alone
  /\ ps[p].up /\ ps[p].st # "resume" /\ ~Acts(p) /\ file[Dir(p)] > 0 /\ (Serial => pw[p] = 0)
  /\ file' = [file EXCEPT ![Dir(p)] = 0]
  /\ UNCHANGED <<store, q, rep, ps, net, pw, sess, bud, ext>>

Crash(p) ==            \* SIGKILL or exit: the kernel takes the lock away and ends the writing thread
  /\ ps[p].up /\ bud.crash > 0 /\ bud' = [bud EXCEPT !.crash = @ - 1]
  /\ Set(p, [up |-> FALSE, gu |-> {}, pd |-> 0, pt |-> 0, pk |-> NoSess] @@ LoseLease(p))
  /\ pw' = [pw EXCEPT ![p] = 0] /\ q' = [q EXCEPT ![p] = <<>>]
  /\ rep' = [rep EXCEPT ![p] = Snap([x \in L |-> 0], Ctl0, 0)]
  /\ net' = {IF m.p = p THEN [m EXCEPT !.a = FALSE] ELSE m : m \in net}
  /\ UNCHANGED <<store, file, sess, ext>>

Peek(p) ==             \* only for FlockFirst = FALSE: reads session.json, then waits for the lock
  /\ ~FlockFirst /\ ~ps[p].up /\ ps[p].pk # sess[Dir(p)]
  /\ Set(p, [pk |-> sess[Dir(p)]])
  /\ UNCHANGED <<store, q, rep, net, file, pw, sess, bud, ext>>

Locked(p) == \E r \in Procs \ {p} : Dir(r) = Dir(p) /\ ps[r].up

Restart(p) ==          \* a process starts, under the lock of its directory
  /\ ~ps[p].up /\ (Flock => ~Locked(p)) /\ Quietly(p)
  /\ LET s == IF FlockFirst THEN sess[Dir(p)] ELSE ps[p].pk IN
     \/ /\ s.l # NoL
        /\ Set(p, [up |-> TRUE, l |-> s.l, st |-> "resume", tok |-> s.tok])
     \/ Set(p, [up |-> TRUE, st |-> "boot"])     \* session.json unreadable, another boot id, `exec`
  /\ UNCHANGED <<lease, term, net, file, pw, sess, bud, ext>>
LeaveResume(p) ==      \* no answer in time
  /\ ps[p].up /\ ps[p].st = "resume" /\ ~Waits(p, {"renew"})
  /\ Set(p, NoResume(p))
  /\ UNCHANGED <<store, q, rep, net, file, pw, sess, bud, ext>>
Boot(p) ==             \* says follower before anything else, then ends the old lease and queues
  /\ ps[p].up /\ ps[p].st = "boot" /\ MayGiveUp(p)
  /\ Set(p, [st |-> "none"])
  /\ LET s == sess[Dir(p)] IN
     net' = IF s.l # NoL THEN net \cup {[M("revoke", p, s.l, 0) EXCEPT !.a = FALSE]} ELSE net
  /\ sess' = [sess EXCEPT ![Dir(p)] = NoSess]
  /\ UNCHANGED <<store, q, rep, file, pw, bud, ext>>

PauseKey ==
  /\ bud.pz > 0 /\ bud' = [bud EXCEPT !.pz = @ - 1]
  /\ PushAll(key, [ctl EXCEPT !.pause = ~@], "nobody")
  /\ UNCHANGED <<lease, term, ps, net, file, pw, sess, ext>>

Want(p) ==             \* unhealthy, retired, healthy again
  /\ ps[p].up /\ bud.want > 0 /\ bud' = [bud EXCEPT !.want = @ - 1]
  /\ ps[p].st \in {"none", "camp"}
  /\ Set(p, [want |-> ~ps[p].want])
  /\ UNCHANGED <<store, q, rep, net, file, pw, sess, ext>>

ExtDelete(x) ==        \* somebody else deletes a key (outside the guarantee)
  /\ bud.ext > 0 /\ bud' = [bud EXCEPT !.ext = @ - 1] /\ key[x] # 0
  /\ Push([key EXCEPT ![x] = 0], "nobody") /\ ext' = [ext EXCEPT ![x[1]] = TTL + 1]
  /\ UNCHANGED <<lease, term, ps, net, file, pw, sess>>

Tick ==
  \E S \in SUBSET {p \in Procs : Drift > 0 /\ ps[p].skip = 0} :
    LET d(p, n) == IF p \in S THEN n ELSE dec(n) IN
    /\ lease' = [x \in L |-> IF lease[x] > 0 THEN lease[x] - 1 ELSE lease[x]]
    /\ ps' = [p \in Procs |-> [ps[p] EXCEPT !.dl = d(p, @), !.pd = d(p, @), !.gd = d(p, @),
                                            !.skip = IF p \in S THEN Drift ELSE dec(@)]]
    /\ net' = {[m EXCEPT !.d = d(m.p, @)] : m \in net}
    /\ file' = [p \in Procs |-> d(p, file[p])] /\ pw' = [p \in Procs |-> d(p, pw[p])]
    /\ ext' = [p \in Procs |-> dec(ext[p])]
    /\ Still /\ UNCHANGED <<term, sess, bud>>

Step ==
  \/ Tick \/ EtcdElect \/ PauseKey \/ SendAsk \/ AskGone
  \/ \E p \in Procs :
       \/ SendRenew(p) \/ ReadKey(p) \/ SendGrant(p) \/ GrantAgain(p) \/ SendCamp(p) \/ KeyLost(p)
       \/ StepDown(p) \/ Obey(p) \/ SendResign(p) \/ Move(p) \/ SendHand(p) \/ AfterGiveUp(p)
       \/ Deliver(p) \/ Flag(p) \/ WriteLeader(p) \/ Land(p) \/ WriteFollower(p)
       \/ Crash(p) \/ Peek(p) \/ Restart(p) \/ LeaveResume(p) \/ Boot(p) \/ Want(p)
       \/ \E x \in L : Adopt(p, x) \/ Clean(p, x)
  \/ \E x \in L : Expire(x) \/ ExtDelete(x)
  \/ \E m \in net :
       \/ ApplyRenew(m) \/ StaleRenew(m) \/ ApplyRevoke(m) \/ ApplyGrant(m) \/ ApplyCamp(m)
       \/ ApplyDel(m) \/ ApplyMove(m) \/ ApplyHand(m) \/ ApplyAsk(m) \/ Timeout(m)

Next == Step /\ maxA' = SetMax({maxA} \cup {ps'[p].tok : p \in {r \in Procs : Acts(r)'}})
Spec == Init /\ [][Next]_vars

Bound == rev <= MaxRev /\ Cardinality(net) <= MaxNet

-----------------------------------------------------------------------------
(* Properties *)
(* two processes on one directory share its file: there only the processes themselves are compared *)
I1 == \A p, r \in Procs : p # r =>
        /\ ~(Acts(p) /\ Acts(r))
        /\ Dir(p) # Dir(r) => ~(Leads(p) /\ Leads(r))
I2 == \A p \in Procs : Acts(p) => ps[p].tok = maxA     \* who acts holds the largest token that ever acted

(* I3: whoever believes that it stands has its key, or something under way will tell it *)
I3 == \A p \in Procs :
        (ps[p].up /\ ps[p].st = "stand" /\ ps[p].l # NoL /\ q[p] = <<>>)
          => (key[Me(p)] = ps[p].tok \/ rep[p].k[Me(p)] # ps[p].tok)
(* and every key belongs to somebody who knows it, will clean it up, or does not renew its lease *)
I3b == \A p \in Procs, x \in L :
        (key[x] # 0 /\ ps[p].up /\ q[p] = <<>> /\ Me(p) = x)
          => \/ ps[p].tok = key[x] \/ ps[p].st \in {"camp", "boot", "resume"} \/ Adoptable(p, x)
             \/ (\E m \in net : m.t = "del" /\ m.l = x) \/ NeedsClean(p, x)

Settled ==             \* nothing is under way and nobody has anything left to do but renew
  /\ ~ctl.pause
  /\ \A p \in Procs : ps[p].up \/ Locked(p)
  /\ \A p \in {r \in Procs : ps[r].up} :
                      /\ ps[p].want /\ q[p] = <<>> /\ ps[p].l # NoL
                      /\ ps[p].st \in {"none", "stand", "giveup"} /\ lease[Me(p)] >= 0
                      /\ ps[p].st = "none" => rep[p].k[Me(p)] # 0
                      /\ ~(\E x \in L : Mine(p, x) /\ (Adoptable(p, x) \/ NeedsClean(p, x)))
                      /\ ps[p].st \in {"stand", "giveup"} => rep[p].k[Me(p)] = ps[p].tok
                      /\ ps[p].st = "giveup" => (~Retry \/ HandFail = "stay")
                      /\ ~(\E c \in rep[p].c.asks : Heeds(p, c))
  /\ \A m \in net :      \* a request nobody waits for may also be lost
       \/ m.t \in {"renew", "ask"} \/ (~m.a /\ m.t \in {"camp", "hand", "grant"})
       \/ (~m.a /\ m.t = "del" /\ ps[m.p].st = "giveup" /\ Me(m.p) = m.l /\ ps[m.p].tok = m.c)
  /\ \A x \in L : key[x] # 0 => \E p \in Procs : x = Me(p)
L1 == Settled => \E p \in Procs : /\ ps[p].st = "stand" /\ FirstIn(key, Me(p))
                                  /\ key[Me(p)] = ps[p].tok /\ ps[p].tok \notin ps[p].gu
(* a deleted leader (outside the guarantee) stops within one TTL, even with a silent watch *)
X1 == \A p \in Procs : (Acts(p) /\ ext[p] = 0) => (key[Me(p)] = ps[p].tok \/ lease[Me(p)] = -1)

P1 == \A p \in Procs : Acts(p) => ~rep[p].c.pause     \* nobody acts who has seen a pause key

R1 == \A p \in Procs : ps[p].od \in {0, ps[p].tok}    \* a command ends only the term that it names

(* reachability checks: each must be VIOLATED, else the model is empty *)
NobodyActs == \A p \in Procs : ~Acts(p)
NoTwinActs == \A p \in Twins : ~Acts(p)
NobodyHearsExists == \A p \in Procs : ps[p].st # "ttl"
NobodyObeys == \A p \in Procs : ps[p].od = 0
=============================================================================
