"""Shapes of the pack, by what a stranger would call them.

The pack names its files for those who build with them ("tree birch 3", "potion9 empty", "cube grass side").
A shape is called by the first rule that its category and its words match, and left out where the rule is
empty: parts, tiles and what shows too little to be known. What no rule names is called by its own words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from modalities.image.colour import COLOURS
from modalities.packs import held_out, read_rows

# "pattern = name|another wording|...": of the words without numbers, or with a "/" of "category/words"
RULES = r"""
base|base (?!ball).*|basemodule.*|cargo.*|containers|lander base|structure .*|terrain .* =
tunnel diagonal.*|lights =
road .*|street (?!light).*|streets all|trash|path .*|plaque.*|post|post skull|smokebomb =
barrier.*|drill structure =
target (pieces|stand).*|dummy.*|primitive (doorway|window)|weaponrack|menu =
shelf .*papertowel.*|shrine.*|bag flat =
skeleton arrow .*|bench decorated|box small decorated|keg decorated|crate lid|bowl dirty|restaurant.*/pillar =
building (archeryrange|bridge|destroyed|dirt|grain|lumbermill|mine|scaffolding|stage|tavern|blacksmith).* =
trees cut|rubble half|windturbine.*|medieval-hexagon.*/flag.*|banner triple.*|stew (bowl|pot) =
food ingredient (potato (chopped|mashed)|steak pieces|lettuce chopped|bun (top|bottom)) =
cake slicer|cheese slicer|whisk|tajine.*|hole|node|react logo|spilling coffee|low poly farm =
fries empty|present =
frikandel.*|hot dog raw|ice cream cone|plate broken|popsicle stick|paprika slice|egg half|market/bridge =
bamboo crop|bush berries crop|cactus crop|cactus flower =
(flowers?|lettuce|rice) (crop|harvested)|mushroom (c|h).* =
crops.*/(lettuce|rice|tomato|watermelon|pumpkin|wheat)( harvested)? =
crops.*/(carrot|beet|pumpkin|watermelon|tomato|orange|apple|wheat) crop = \1
crops.*/corn crop = ear of corn|corn
crops.*/palm tree crop = coconut
crops.*/(apple|orange)( harvested)? = tree|\1 tree
corn( harvested)? = corn plant
low poly (\w+) = \1
cable.*|collectible board|computer.*|pickup (heart|tank|jar|key card|sphere)|cyberpunk.*/(pickup.*|tank|tv) =
support.*|light square|turret teleporter|bathroom shower|sawmill.*|smoke|arch bars =
stairs side cover|trap empty =
modular_dungeon_pack/(bars|window)|modular_medieval.*/(bridge|window.*)|details .* =
modular_sci_fi/column.*|pipes =
props (base|capsule|computer.*|container.*|laser|pod|statue|teleporter|vessel.*) =
cube default|hazard (cyl|spike).* =
(barrel|body|grip|magazine|stock) (ar|grenade|pistol|single|sniper|smg|crossbow|front).* =
stock|cylinder pistol =
scope|sight|handguard pistol|cube (dirt|grass) (?!single).*|cube (exclamation|spikes)|bouncer|numbers|rope.* =
character gun|platformer_game.*/(grass|stairs.*)|archery .*|barracks .*|farm .* =
market (first|second) .*|mine =
town center.*|resource (gold|tree group cut|pine tree group ?cut)|rock group|temple first.* =
shoulder pads|match burnt =
building l|connector|ultimate_space.*/(bush|grass|house.*)|metal support|path square|path =
# those of Sweet Home 3D
medicine box|shower (?!stall).*|card game|dress|jacket|futon|puzzle|short|skirt|trousers =
bedroom/socket|wood toy =
window shutter|exterior/(acacia|bamboo)|arrow (straight|turn).*|parking.*|concrete sidewalk =
entry .*|pedestrian .* =
rails?( crossing)?|cooker|island.*|induction.*|plate glass.*|stone grill device|sushi tray =
fluorescent.*|wall lamp.* =
wall (light|spotlight)|contemporary.*|emergency sign|fitness tower|hashtray|mp base|mp station|number lock =
cuckoo clock|round chimney|shipping container|tape measure|(rounded|square) .*(plug|switch)|clothes hanging =
wall (antenna|rj) plug|wall double socket|stand-alone .*|thermometer|box stacked tall|stone grill.* =
wall type.*plug|wall socket = wall socket|power outlet
wall .*switch = light switch|wall switch
doors.*/.*window.* = window
doors.*/.*door.* = door
bath|(corner|island) bath(tub)?|bathroom bathtub = bathtub|bath
double vanity|vanity = bathroom vanity|vanity
small lavatory|washbasin|bathroom sink|sink cabinet = sink|washbasin
flacon|medicine bottle = bottle
lip stick = lipstick
soap = soap dispenser
toilets unit|bathroom toilet = toilet
toilet paper dispenser = toilet paper|toilet paper holder
bathroom toilet paper pile = rolls of toilet paper
bathroom (.*) = \1
baby bed = cradle|baby bed
(child|captain's|day|hospital|iron) bed = bed|\1 bed
bed king|bed double = bed|double bed
bed single|bed frame|bed decorated = bed|single bed
(bunk bed|bed bunk|mezzanine bed) = bunk bed
bootie = boots
woman shoes = high heels|women's shoes
mocassin = shoes|moccasins
car model = toy car
convertible sofa bz|burlap sofa|clear sofa|sofa seats|futon couch|couch = sofa|couch
couch (large|medium|small|pillows) = sofa|couch
opened convertible.* = sofa bed
winchester sofa = sofa|leather sofa|couch
winchester armchair = armchair|leather armchair
couch l|corner sofa = corner sofa|sofa
doll house = dollhouse|doll house
suit = jacket|suit jacket
bulldog|shiba inu|husky = dog|\0
dogue = dog|yellow dog
siamese cat = cat|siamese cat
horse white = horse
barnum = canopy|gazebo
medieval-hexagon.*/tent = canopy
basketball net = basketball hoop
bended coconut tree|coconut tree|palm (detailed )?(long|short)|palm tree( harvested)? = palm tree|coconut tree
.*pine under snow = snowy pine tree|pine tree
child swing = swing set|swing
child hut|children game = playground|playground slide
(copper beech|sycamore maple|poplar|ficus|peach blossom|pine|japanese maple|cypress) = tree|\1 tree
football goal = soccer goal|goal
garden faucet = faucet|tap
garden hut = shed|garden shed
letters box = mailbox
little bank|wood bank|painted bench|concrete bench = bench
motorbike = toy motorcycle
porch column = column|pillar
(park|residential) trashcan|trashcan.*|bullet trash can|dustbin = trash can|garbage can|bin
rattan (.*) = \1|rattan \1
(relax chair|pool lounge|beach chair) = lounge chair|sun lounger
(teck|osaka|oak|plastic|child|children|cafe|folding|ryokan|bar) chair = chair|\1 chair
chair( wood| with cushion)?|class seat = chair
exterior/umbrella = parasol|beach umbrella
(rectangle|round) swimming pool = swimming pool|pool
apples = bowl of apples
boiler = kettle
bowl with fruits = bowl of fruit
bowl with salad|salad = bowl of salad|salad
chopping board|cuttingboard|cutting board.* = cutting board|chopping board
clothes washing machine = washing machine
coffee (brewer|maker) = coffee machine|coffee maker
coffee press = french press|coffee press
coffee mug|mug empty = mug
cup cake = cupcake
dryer machine = tumble dryer|clothes dryer
espresso kettle = moka pot|espresso maker
(range )?hood|extractorhood = range hood|extractor hood
.*(upper|lower|high|drawers|door|shelves|corner|filing) cabinet|kitchencabinet.* = cabinet
kitchen .*(cabinet|drawers).* = cabinet
cabinet (medium|small).* = cabinet|nightstand
(large )?fridge.*|refrigerator|kitchen fridge = refrigerator|fridge
kitchen oven.*|(double|small) oven = oven
(kitchen ?)?(counter )?sink.*|kitchentable sink.*|kitchencounter sink.* = sink|kitchen sink
kitchentable.* = table|kitchen table
kitchen tools|utensils pot = kitchen utensils
(kitchen|cooking) knife.*|utensil knife = knife|kitchen knife
knife stand|knife block = knife block|knives in a block
large pan = pot|cooking pot
large stove|propane stove|stove.* = stove
oil servers = oil bottles
old jar = jug
pottery = pot
spice tower = spice rack
squeezer = juicer
sugar = sugar bowl|jar
tool = kitchen utensil|ladle
kitchen/shovel = dustpan
roasted chicken|turkey = roast chicken|roast turkey
chandelier lamp|light chandelier = chandelier
(classic lamppost|park light|street lamp|street light|light street|streetlight.*) = streetlight|street lamp
(little|pedestal vase|outdoor|camping)? ?lamp|lamp table|desk lamp|light desk = lamp|table lamp
lamp standing|light stand = floor lamp|standing lamp
porch light = lantern|porch light
(hanging light|pendant lamp|light (cube|icosahedron)|light ceiling.*|light small) = ceiling lamp|pendant lamp
(black|cafe|bar|glass|oak|folding|round|technical|children|coffee) table = table|\1 table
wooden (alder |teak )?table|table on trestles|desk table|table with tablecloth = table
wooden desk = desk
table round.*|table round = table|round table
table .*broken = broken table
table.* decorated.* = table with things on it|table
table (long|low|medium|small|big).* = table|\1 table
living.*/deer = deer statue|deer
dresser with drawers|drawer = dresser|chest of drawers
joystick|nes controller = game controller
living.*/keyboard = electric piano|keyboard
mechanical keyboard.* = computer keyboard|keyboard
(little|indoor|decorative|spider|succulent)? ?plant|spathiphyllum|houseplant|yucca = potted plant|houseplant
nature_pack/plant|simple.*/plant|platformer.*/plant.*|plant pirate kit|waterplant = plant
ultimate_space.*/plant = alien plant
orchids = orchid
flowers = flowers
living.*/flowers = vase of flowers|flowers in a vase
puff = bean bag|pouf
round carpet|carpet.*|rug.*|oriental rug = rug|carpet
full bookcase|bookshelf = bookcase|bookshelf
(vertical )?shelves|shelf.*|props shelf.* = shelf
tv|tv :|wall flat tv = television|tv
tv remote control = remote control
television cabinet = tv stand
video projector = projector
white lily = lily
wireless phone|office/phone = telephone|phone
abdominal bench = weight bench|exercise bench
air conditioning.*|ac.* = air conditioner|air conditioning unit
bill.* = banknote|bill
cctv|surveillance camera = security camera|surveillance camera
clothes horse = drying rack
cone = traffic cone
cutting pliers = bolt cutter
dart game = dartboard
extinguisher = fire extinguisher
flipper = pinball machine
football table = foosball table|table football
frame .*|pictureframe.* = picture frame
furnace = wood stove
gaz water heater|electric water heater = water heater|boiler
gift = gift box|present|gift
grinder = angle grinder
indoor bike = exercise bike
iron railing|rail (long|short) = railing
locked locker = locker
mini stereo = stereo
mobile phone|survival.*/phone = smartphone|phone
mower = lawn mower
punching ball = punching bag
reflex camera = camera
rigged fan|table fan = fan|table fan
screen = folding screen|room divider
table tennis = ping pong table|table tennis table
table tennis bat = ping pong paddle|table tennis bat
tape = roll of tape
trunck|trunk.* = chest|trunk
chest (closed|open)|props chest = chest
chest (gold|ingots) = treasure chest|chest of gold
wall hanger = coat hooks
wire coathanger|clothes hanger = coat hanger|hanger
wood logs|logs = pile of logs|logs
wood ?log.* = log
apple ibook = laptop
inkjet printer and scanner = printer
penbox = pen holder|pencil cup
text marker = highlighter
white board = whiteboard
(concept sedan.*|ford focus|peugeot cc|renault scenic|seat leon|smart car|vw new beetle) = car
(car )?(hatchback|sedan|stationwagon|suv|sports sedan)( luxury)? = car
car police = police car
car taxi = taxi
yamaha.* = motorcycle|motorbike
bike = bicycle|bike
city bus = bus
fork lift = forklift
# weapons, figures and things of games
arrow bundle = bundle of arrows
(skeleton )?(axe|crossbow|quiver|shield|staff|arrow|sword|dagger|bow|dart)( .*)? = \2
skeleton blade = sword
platformer.*/arrow.*|sign (left|right).* = arrow sign|signpost
mage = wizard
rogue.* = archer
knight character = knight
mug full = mug of beer
(spellbook|book) closed|book single = book
(spellbook|book) open|modular_dungeon_pack/book = open book|book
book set = row of books|books
building (church|castle|windmill|watermill|well).* = \1
building market.*|market stand|cart = market stall
building home.*|inn|stable|blacksmith|houses .*|storage .* = house
building tower.*|.*(simple|square|large|small|pointy|simple) ?tower.*|tower = tower|castle tower
building barracks.*|tower house.*|wonder.*|temple second.* = castle
building.*|library large = building|apartment building
buildings_pack_3/.* = building|apartment building
watch ?tower.* = watchtower|tower
firehydrant = fire hydrant
trafficlight = traffic light
watertower = water tower
banner.* = banner|hanging banner
barrel small stack = stack of barrels
(box|crate)s? stacked|crate .*stack = stack of boxes|stack of crates
barrel( large| small)?( decorated)?|keg|sci fi crate = barrel
box( large| small)? = box
crate long.*|crate open|crate big|crate small|props crate.*|lootbox|pickup crate = crate|box
yellow box|cube crate = crate|box
crate (buns|carrots|cheese|ham|lettuce|onions|potatoes|steak|tomatoes) = crate of \1
candle lit|candle thin lit = candle|burning candle
candle( melted| thin)? = candle
candle triple = three candles|candles
coin stack.*|coin pile = pile of coins|coins
coin.* = coin
keyring.* = bunch of keys|keys
plate food.*|plate (dinner|sauerkraut)|food dinner = plate of food
plate stack = stack of plates
rubble large = pile of rubble
stairs.*|staircase|primitive stairs.* = stairs|staircase
sword shield.* = shield and swords|shield
cactus.* = cactus
(chair )?stool.* = stool
arch gate = gate|arch with a gate
grave.*(?<!marker) = gravestone|grave
gravemarker = cross|grave cross
post lantern = lantern on a post
pumpkin .*jackolantern = jack-o'-lantern
pumpkin.* = pumpkin
skull candle = skull with candles
tree dead.*|dead tree.* = dead tree|bare tree
bucket.* = bucket
hill single = hill
hills.* = hills
mountain (group|large group) = mountains
mountain.* = mountain
resource lumber = planks
resource stone = stone blocks
rock single|rocks|formation.*|resource rock = rock|boulder
tree single cut|tree stump.* = tree stump
tree single|tree (big|small)|resource tree|common tree|ultimate_nature/tree = tree
(resource )?(pine )?tree group|trees (large|medium|small) = trees|group of trees
tree (pine|resource pine).*|resource pine tree|pine tree = pine tree|tree
(birch|pine|common|willow)( tree)? dead.* = dead tree|bare tree
(birch|pine|willow)( tree)? autumn = tree|autumn tree|\1 tree in autumn
(birch|pine|willow)( tree)? snow = snowy tree|\1 tree with snow
common tree autumn = tree|autumn tree
common tree snow = snowy tree
(birch|willow)( tree)? = tree|\1 tree
tree fruit = fruit tree|tree
ultimate_space.*/tree.* = alien tree
rock moss = mossy rock|rock
rock snow = snowy rock|rock
bush (berries|fruit)( harvested)? = berry bush|bush
bush snow = snowy bush|bush
(waterlily|lilypad) = lily pad|water lily
cube prototype.*|primitive cube.* = cube
primitive (beam|pillar) = beam
primitive slope.* = ramp
cube bricks = brick block
cube dirt single = block of dirt
cube grass single = grass block
cube question = question block
dishrack = dish rack
dishrack plates = dish rack with plates
food (vegetable)?burger|burger.* = burger|hamburger
food ingredient (vegetable)?burger.* = burger patty|patty
food ingredient ham.*|whole.* ham = leg of ham|ham
food ingredient (carrot|cheese|onion) chopped = \1
food ingredient carrot pieces = carrot slices
food ingredient (cheese|tomato) slices? = \1 slice|slice of \1
food ingredient lettuce slice = lettuce leaf
food ingredient onion rings = onion rings
food stew = bowl of stew
food ingredient (.*) = \1
jar.* = jar
(bottle )?(ketchup|mustard) = \2 bottle|bottle of \2
bottle musterd = mustard bottle|bottle of mustard
bottle oil = oil bottle|bottle of oil
bottle.* = bottle
(pot|pan|frying pan|pot stew) lid|lid.* = lid|pot lid
frying pan|pan( small)? = frying pan|pan
(pan|pot) stew = pot of stew
pot large|pot small = pot
papertowel|paper towel holder = paper towel|paper towel roll
towelrail = towel rack
lander = lunar lander|space lander
landingpad.* = landing pad
solar ?panel.* = solar panel
spacetruck trailer = trailer
spacetruck.* = truck|space truck
bacon raw = bacon
bag = bag
market/bag = paper bag|bag
medieval_village.*/bag( open)?|bag standing = sack|bag
bags = sacks
bag coins = pouch
blaster = blaster|toy gun
bowl (broth|cereal|soup) = bowl of \1
soy = bowl of soy sauce
bunny = rabbit|bunny
cake birthday = birthday cake
can (closed|small|red|broken) = can|tin can
can open = open can|can
candy bar.* = candy bar
cannon ?ball = cannonball
cannon.* = cannon
carton.* = milk carton|carton
cheese cut = cheese
chinese = takeout box|box of noodles
chocolate.* = chocolate bar
chopstick.* = chopstick
citroen old van = van
cookie.* = cookie
(cooking|utensil) (fork|spoon|spatula) = \2
coronavirus = virus|coronavirus
cup saucer = saucer
cup (tea|thea) = cup of tea|cup
(skater|survivor|cyborg)? ?female = woman|girl
(skater|survivor)? ?male = man|boy
pirate.* = pirate
delivery truck|garbage truck = truck|\0
truck( flat)? = truck
vehicles/truck = truck
dim sum = dumpling
donut.* = donut|doughnut
dragon = dragon|dragon statue
egg cooked = fried egg
expresso cup|coffee cup = coffee cup|cup of coffee
firetruck = fire truck|fire engine
fish bones? = fish bone|fish skeleton
frappe = iced coffee
(french )?fries = french fries|fries
ginger bread = gingerbread man
ginger bread cutter = cookie cutter
glass wine = wine glass
honey = honey jar|jar of honey
ice cream = ice cream|ice cream cone
ice cream scoop.* = scoop of ice cream
les paul = electric guitar|guitar
loaf.*baguette = baguette|bread
loaf.* = loaf of bread|bread
lollypop = lollipop
lucy = angel statue|angel
maki.*|sushi.* = sushi
meat (cooked|raw) = steak|meat
meat tenderizer = meat hammer
meat (patty|ribs|sausage) = \1
mincemeat pie = pie
mortar pestle = pestle
mussel.* = mussel
nes = game console
paprika = bell pepper
peanut butter = jar of peanut butter
pepper = chili pepper|chili
race (car|futrure) = race car|racing car
rice ball = rice ball|onigiri
shaker (pepper|salt) = \1 shaker
ship wreck = shipwreck
(ship (dark|light)|sail ship) = sailing ship|ship
viking boat = viking ship|ship
boat wsail = sailboat|boat
lifeboat|raft = inflatable boat|boat
boat.* = boat
skewer.* = skewer
soda = soda cup|cup with a straw
soda can crushed = crushed can|can
steamer = bamboo steamer
styrofoam.* = food container
sub = sandwich|sub sandwich
suzanne.* = monkey head|monkey
tractor police = tractor
wine (red|white) = wine bottle|bottle of wine
dock.*|port .* = dock|wooden pier
fishing rod.* = fishing rod
lure = fishing lure
(anglerfish|blobfish|clownfish|goldfish|koi|lionfish|piranha|swordfish|tuna|sunfish|butterfly fish) = fish|\1
puffer = fish|pufferfish
cute_fish.*/goblin shark = shark
cute_fish.*/(?!shark|boat|dock|fishing|lure|worm).* = fish
character( humanoid rig)?|enemy legs.*|george|leela|mike|stan|mech.*|cyberpunk.*/enemy.* = robot
platformer_game.*/character.* = bunny character|bunny
(easy|platformer|ultimate).*/enemy.* = monster
collectible gear = gear
sign small = sign
sign (no parking|stop|triangle) = road sign|traffic sign
turret.* = gun turret|turret
trex = dinosaur|tyrannosaurus
apatosaurus|parasaurolophus|stegosaurus|triceratops|velociraptor = dinosaur|\0
snake angry = snake
(coffin|pallet|armchair)( small)? (decorated|pillows|ottoman) = \1
milk = milk carton
plate (deep|dirty|rectangle) = plate
windmill.* = windmill
(star|heart) outline = outline of a \1
grass short = grass
high hedge = hedge
beer glass = beer mug
cocktail glass = cocktail glass|martini glass
column.*broken = broken column|column
column.*|pillar.*|pedestal = column|pillar
curtains?.* = curtains|curtain
door.*|arch door.* = door
night stand|bedside table = nightstand|bedside table
window.* = window
bonfire.*|woodfire = campfire|bonfire
gazebo = gazebo
hay = bale of hay|hay
mill = windmill
claymore|katana|short sword = sword|\0
hammer.* = hammer
spikes?.*|trap spikes = spikes
statue horse = horse statue|statue of a horse
trapdoor.* = trapdoor
cobweb = cobweb|spider web
entrance = arch
potion.* = potion bottle|potion|flask
modular_men/(casual|beach|adventurer|king|spacesuit|swat|punk) = man
modular_men/suit = man in a suit|man
modular_women/formal = woman in a dress|woman
modular_women/suit = woman in a suit|woman
modular_women/(casual|adventurer|medieval|punk|sci fi|soldier) = woman
modular_(wo)?men/worker = construction worker
ar = rifle|assault rifle
sniper = rifle|sniper rifle
smg = submachine gun|gun
shotgun.* = shotgun
survival.*/torch = flashlight
wooden torch.*|torch.* = torch
raft paddle = paddle
first aid kit.*|pickup health = first aid kit|medical kit
bear trap.* = bear trap
battery.* = battery
compass.* = compass
gas can = gas can|jerrycan
match.*fire = match|burning match
wheat = wheat
goal flag = flag
gem.*|crystal.* = gem|crystal|jewel
hazard saw = saw blade
heart (full|broken) = heart
pipe.* = pipe
thunder|pickup thunder = lightning bolt
pickup bullets = bullets
ladder.* = ladder
armor.* = armor|breastplate
chalice = goblet|chalice
gold ingots = gold bars|stack of gold bars
mineral = crystals|crystal cluster
parchment = scroll|parchment
club = spiked club|club
spaceships.*/.*|spaceship.* = spaceship|starfighter
astronaut.* = astronaut
rover.* = rover|space rover
candelabrum.* = candelabrum|candelabra
package = package|bundle
"""
MODIFIERS = set("small large big tiny medium short long tall thin wide low little round half empty broken "
                "open closed old modern standing hanging double".split())
LEADING = {"small", "large", "big", "little", "old", "modern", "painted"}  # of which a name is bare
MADE_OF = {"wood": "wood wooden oak teak teck alder", "gold": "golden gold", "metal": "metal iron",
           "stone": "stone concrete", "leather": "leather", "glass": "glass", "rattan": "rattan",
           "plastic": "plastic"}
MATERIALS = {word: name for name, said in MADE_OF.items() for word in said.split()}
WRONG = {  # seedlings, bare stems and what is broken or cannot be told
    *(f"quaternius-{n:04}" for n in (828, 834, 839, 844, 856, 857, 862, 863, 868, 869, 890, 896)),
    *(f"sweethome3d-{n:04}" for n in (19, 98, 372)),
}


@dataclass(frozen=True)
class Shape:
    """One mesh of the pack; held ones are never composed."""

    path: Path
    name: str
    words: tuple[str, ...] = ()  # other wordings that are as true
    material: str | None = None  # that its maker says it has
    size: tuple[float, float, float] | None = None  # metres, width (x), height (y), depth (z)
    source: str = ""
    held: bool = False


def held_out_name(name: str) -> bool:
    """Whether every shape of this name is kept from training."""
    return held_out("shape", name, share=0.03)


def held_out_colour(name: str, colour: str) -> bool:
    """Whether this name is never shown nor told in this colour or of this material in training."""
    return held_out("shape colour", name, colour)


def load(data: Path) -> list[Shape]:
    """The shapes of the pack below `data` (or in it) that have a name.

    Raises: ValueError, naming the line, if the pack cannot be read.
    """
    folder = data / "shapes" if (data / "shapes").is_dir() else data
    shapes = []
    for row in read_rows(folder):
        names = called(row) if Path(row["file_name"]).stem not in WRONG else ()
        if names:
            size = row.get("size_cm")
            metres = tuple(float(size[i]) / 100 for i in (0, 2, 1)) if size and all(size) else None
            others = tuple(name for name in names[1:] if not held_out_name(name))
            shapes.append(Shape(folder / row["file_name"], names[0], others, material(row), metres,
                                str(row.get("source") or ""), held_out_name(names[0])))
    return shapes


def called(row: dict[str, Any]) -> tuple[str, ...]:
    """What a line's shape is called: its name, then other wordings; nothing if it is left out."""
    category, said = str(row.get("category") or "").lower(), _plain(row["text"])
    for pattern, names in rules():
        found = pattern.fullmatch(said) or pattern.fullmatch(f"{category}/{said}")
        if found:
            return tuple(found.expand(name.replace(r"\0", r"\g<0>")).rpartition("/")[2] for name in names)
    tokens = [t for t in said.split() if t not in COLOURS] or said.split()
    last = next((i for i in reversed(range(len(tokens))) if tokens[i] not in MODIFIERS), len(tokens) - 1)
    tokens = tokens[last + 1:] + tokens[:last + 1]  # "bottle large" is a large bottle
    tokens = [t for t in tokens if t not in MATERIALS] or tokens
    bare = [t for t in tokens if t not in LEADING] or tokens
    return tuple(dict.fromkeys((" ".join(bare), " ".join(tokens))))


def material(row: dict[str, Any]) -> str | None:
    """What a line says its shape is made of."""
    said = str(row["text"]).lower().split()
    return next((MATERIALS[word] for word in said if word in MATERIALS and len(said) > 1), None)


@lru_cache(maxsize=1)
def rules() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """The patterns of RULES in their order, those of a category first, and the names they give."""
    rows = [line.partition(" =")[::2] for line in RULES.strip().splitlines() if not line.startswith("#")]
    rows.sort(key=lambda row: "/" not in row[0])
    return tuple((re.compile(row[0]), tuple(filter(None, row[1].strip().split("|")))) for row in rows)


def _plain(text: str) -> str:
    """Lower case, without numbers, the letters by which variants are told apart, and marks."""
    text = re.sub(r"\d+(?=[a-z]+\b)|\d+", " ", text.lower())
    text = re.sub(r"\b([a-f]|lvl|level)\b|[^a-z' ]", " ", text.replace("-hung", ""))
    return " ".join(text.split())
