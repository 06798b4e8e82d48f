-- The position of the sun, and the light by it. Times are UTC as timestamps, angles are degrees, or radians if the name ends in rad.
-- Formulas: The Astronomical Almanac, "Low precision formulas for the Sun's coordinates", 0.01 degrees from 1950 to 2050.

create or replace temp macro days_since_2000(utc) as epoch(utc) / 86400 - 10957.5;

create or replace temp macro sun_longitude_rad(days) as
    radians(280.460 + 0.9856474 * days + 1.915 * sin(radians(357.528 + 0.9856003 * days))
        + 0.020 * sin(radians(715.056 + 1.9712006 * days)));

create or replace temp macro obliquity_rad(days) as radians(23.439 - 0.0000004 * days);

create or replace temp macro sun_right_ascension(days) as degrees(atan2(
    cos(obliquity_rad(days)) * sin(sun_longitude_rad(days)), cos(sun_longitude_rad(days))));

create or replace temp macro sun_declination_rad(days) as
    asin(sin(obliquity_rad(days)) * sin(sun_longitude_rad(days)));

-- Hours of apparent solar time, 0 to 24: the sun is highest at 12. The sidereal time of Greenwich less the right ascension.
create or replace temp macro solar_hour(longitude, utc) as of_a_day(12 + (
    280.46062 + 360.98564737 * days_since_2000(utc) + longitude - sun_right_ascension(days_since_2000(utc))) / 15);

create or replace temp macro of_a_day(hours) as (hours % 24 + 24) % 24;

-- The altitude of the sun's centre, without refraction. Rounded, as a sine of more than 1 is an error.
create or replace temp macro sun_altitude(latitude, utc, solar_hour) as degrees(asin(round(
    sin(radians(latitude)) * sin(sun_declination_rad(days_since_2000(utc)))
        + cos(radians(latitude)) * cos(sun_declination_rad(days_since_2000(utc)))
            * cos(radians(15 * (solar_hour - 12))), 12)));

-- Day until the upper edge sets (-0.833 with mean refraction), night after civil twilight (-6). Above the polar circles
-- all hours are day while the sun does not set, and none is while it does not rise.
create or replace temp macro light_by_sun(altitude, solar_hour) as case
    when altitude >= -0.833 then 'day' when altitude < -6 then 'night'
    when altitude is not null and solar_hour < 12 then 'dawn' when altitude is not null then 'dusk' end;

-- Day from 6 to 18 o'clock by the corrected clock.
create or replace temp macro light_by_clock(taken) as case
    when taken is null then null when hour(taken) >= 6 and hour(taken) < 18 then 'day' else 'night' end;

-- The light by the sun, else by the clock. `image_deployments` has the same in steps, which are planned in half the time.
create or replace temp macro light_at(latitude, longitude, utc, taken) as coalesce(
    light_by_sun(sun_altitude(latitude, utc, solar_hour(longitude, utc)), solar_hour(longitude, utc)),
    light_by_clock(taken));

-- UTC of the file with the correction of its clock, else by the offset of its deployment.
create or replace temp macro utc_of(file_utc, file_local, taken, utc_offset_s) as
    coalesce(file_utc::timestamp + (taken - file_local), taken - to_seconds(utc_offset_s));

-- Seconds from UTC of a zone at the start of a deployment: the clock of a camera keeps them in summer and winter.
create or replace temp macro zone_offset_s(zone, start) as
    epoch(start) - epoch(try_cast(start::varchar || if(zone[1] in ('+', '-'), '', ' ') || zone as timestamptz));
